//! Reading which card is charged, and what its debits say.

use std::str::FromStr;

use uuid::Uuid;

use crate::domain::card::{ChargedCard, PlainCard};
use crate::domain::enrolment::mistake::Wrong;
use crate::domain::enrolment::reading::{Reading, json, of_text};
use crate::domain::enrolment::{Circumstances, Column, NewCard, ShopName};
use crate::domain::fields;
use crate::domain::id::ProfileId;

const PROFILE: &str =
    "a UUID of version 4 in lower case, such as c0de0b1e-1111-4222-8333-9a4b5c6d7e8f";
const ONE_KEY: &str = "either payment_profile_id or first_transaction_id";
const CUSTOMER: &str = "the payer as imoje documents it, JSON with firstName, lastName and email";

impl Reading<'_> {
    pub fn card(&mut self, circumstances: &Circumstances) -> Option<NewCard> {
        let cid = self.required(Column::Cid, "1 to 36 characters of A-Z a-z 0-9 -", |text| {
            fields::validate_cid(text).map_err(of_text)?;
            Ok(text.to_owned())
        });
        let [profile, first_transaction] =
            Column::CARD_KEYS.map(|column| self.fields.get(column).is_some());
        let charged = match (profile, first_transaction) {
            (false, false) if self.has_mistake(Column::FirstTransactionId) => None,
            (true, true) => {
                let wrong = Wrong::new("stands beside payment_profile_id", ONE_KEY);
                self.mistake(Column::FirstTransactionId, wrong);
                None
            }
            (false, true) => self.plain_card(circumstances),
            (_, false) => self.stored_card(),
        };
        Some(NewCard {
            cid: cid?,
            charged: charged?,
        })
    }

    /// No card: the payer registers one later.
    pub fn refuse_card(&mut self) {
        for column in [
            Column::Cid,
            Column::PaymentProfileId,
            Column::FirstTransactionId,
            Column::Customer,
            Column::Card,
        ] {
            let wrong = Wrong::new("names a card that is registered later", "nothing");
            self.refuse(column, wrong);
        }
    }

    /// A card that has a profile.
    fn stored_card(&mut self) -> Option<ChargedCard> {
        let id = self.required(Column::PaymentProfileId, PROFILE, profile);
        for column in [Column::Customer, Column::Card] {
            self.refuse(
                column,
                Wrong::new(
                    "is not sent for a card with a profile",
                    "first_transaction_id",
                ),
            );
        }
        id.map(ChargedCard::Stored)
    }

    /// A card that has none.
    fn plain_card(&mut self, circumstances: &Circumstances) -> Option<ChargedCard> {
        let first_transaction_id = self.optional(Column::FirstTransactionId, |text| {
            text.parse().map_err(of_text)
        });
        let customer = self.required(Column::Customer, CUSTOMER, |text| {
            json(text, fields::validate_customer)
        });
        let aliases = self.optional(Column::Card, |text| {
            let aliases = json(text, fields::validate_card_aliases)?;
            if circumstances.has_card_proxy {
                Ok(aliases)
            } else {
                Err(Wrong::new(
                    "goes through a tokenising proxy, and there is none",
                    "gateway.card_proxy_url in the configuration",
                ))
            }
        });
        // imoje documents payouts for debits of profiles and for payment links.
        self.refuse(
            Column::Multipayout,
            Wrong::new(
                "is not sent for a card without a profile",
                "payment_profile_id",
            ),
        );
        Some(ChargedCard::Plain(Box::new(PlainCard {
            first_transaction_id: first_transaction_id?,
            customer: customer?,
            aliases,
        })))
    }

    /// Whether the shop can debit the card.
    pub fn compare_with_shop(
        &mut self,
        card: Option<&NewCard>,
        shop: Option<&ShopName>,
        circumstances: &Circumstances,
    ) {
        let is_plain = |card: &NewCard| matches!(card.charged, ChargedCard::Plain(_));
        if let Some(shop) = shop
            && card.is_some_and(is_plain)
            && !circumstances.plain_cards.contains(shop)
        {
            let wrong = Wrong::new(
                format!(
                    "names a card without a profile, and shop {shop} has no addresses to lead payers back to"
                ),
                format!("success_return_url and failure_return_url in [shops.{shop}]"),
            );
            self.mistake(Column::FirstTransactionId, wrong);
        }
    }
}

fn profile(text: &str) -> Result<ProfileId, Wrong> {
    let wrong = || Wrong::new("is not the id of a profile", PROFILE);
    let profile = ProfileId::from_str(text).map_err(|_| wrong())?;
    fields::validate_profile_id(profile).map_err(|_| wrong())?;
    // imoje's pattern is the hyphenated form in lower case; others would be the same card under another name.
    let mut buffer = Uuid::encode_buffer();
    if profile.as_uuid().as_hyphenated().encode_lower(&mut buffer) == text {
        Ok(profile)
    } else {
        Err(wrong())
    }
}
