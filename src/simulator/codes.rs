//! imoje's texts for `statusCode`, as its documentation lists them.

/// `statusCodeDescription`, which is "CODE_xx - text" for a documented code and empty for one that imoje passes through
/// from the acquirer.
pub(super) fn description(code: &str) -> String {
    match DESCRIPTIONS.iter().find(|(known, _)| *known == code) {
        Some((_, text)) => format!("{code} - {text}"),
        None => String::new(),
    }
}

/// Every documented code. Wording follows the table of card codes.
const DESCRIPTIONS: &[(&str, &str)] = &[
    ("CODE_000", "OK"),
    ("CODE_01", "Refer to card issuer"),
    ("CODE_02", "Refer to card issuer, special condition"),
    ("CODE_03", "Invalid merchant or service provider"),
    ("CODE_04", "Pickup card"),
    ("CODE_05", "Do not honor"),
    ("CODE_06", "General error"),
    ("CODE_07", "Pickup card, special condition (fraud account)"),
    ("CODE_08", "Honor with ID"),
    ("CODE_10", "Partial approval"),
    ("CODE_11", "Approved (V.I.P)"),
    ("CODE_12", "Invalid transaction"),
    ("CODE_13", "Invalid amount"),
    ("CODE_14", "Invalid account number"),
    ("CODE_15", "No such issuer"),
    ("CODE_19", "Re-enter transaction"),
    ("CODE_30", "Message format error"),
    ("CODE_33", "Expired card, pick up"),
    ("CODE_39", "No credit account"),
    ("CODE_41", "Lost card"),
    ("CODE_43", "Stolen card"),
    ("CODE_51", "Insufficient funds"),
    ("CODE_52", "No checking account"),
    ("CODE_53", "No savings account"),
    ("CODE_54", "Expired card"),
    ("CODE_56", "No card record"),
    ("CODE_57", "Card disabled for e-commerce transactions"),
    ("CODE_59", "Suspected fraud"),
    ("CODE_61", "Exceeds approval amount"),
    ("CODE_62", "Restricted card"),
    ("CODE_63", "Security violation"),
    ("CODE_64", "AML requirement not met"),
    ("CODE_65", "Exceeds frequency limit"),
    ("CODE_75", "PIN tries exceeded"),
    ("CODE_83", "Fraud or security (Mastercard)"),
    ("CODE_90", "Destination not available"),
    ("CODE_93", "Card disabled for cross-border transactions"),
    ("CODE_99", "Authorization error"),
    ("CODE_114", "No requested account"),
    ("CODE_570", "3-D Secure authentication failed"),
    ("CODE_581", "Exceeded limit of unsuccessful attempts"),
    ("CODE_AC", "Account closed (do not try again)"),
    ("CODE_N0", "Unable to authorize / Force STIP"),
    (
        "CODE_N8",
        "Transaction amount exceeds pre-authorised approval amount",
    ),
    ("CODE_P1", "Over daily limit (try again later)"),
    ("CODE_P9", "Enter lesser amount"),
    ("CODE_PF", "Possible fraud (do not try again)"),
    ("CODE_Q1", "Card authentication failed"),
    ("CODE_SD", "Soft decline (strong authentication required)"),
    ("CODE_T3", "Card not supported"),
    (
        "CODE_T5",
        "Card inactive or closed (updated information needed)",
    ),
    ("CODE_T8", "Invalid account"),
    ("CODE_Z3", "Unable to go online"),
    (
        "INT_CREDIT_CARD_DISABLED",
        "Credit cards are not accepted by the shop",
    ),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_documented_code_is_described_and_another_is_passed_through_bare() {
        assert_eq!(description("CODE_51"), "CODE_51 - Insufficient funds");
        assert_eq!(description("VENDOR_7"), "");
    }

    #[test]
    fn codes_and_descriptions_keep_the_documented_lengths() {
        for (code, _) in DESCRIPTIONS {
            assert!(code.len() <= 24 && description(code).len() <= 113, "{code}");
        }
    }
}
