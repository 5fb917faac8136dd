//! The bodies, member by member.

use super::{
    AMOUNT, AMOUNT_MAX, ANY_TEXT, CURRENCIES, Field, Format, Kind,
    invoice::{INVOICE, PAYOUTS},
    optional, pattern,
    patterns::{
        CID, COMPANY, DESCRIPTION, DIGITS, FULL_NAME, ORDER_ID, PHONE, PLACE, SHIPPING_COMPANY,
        TITLE,
    },
    required, text,
};

/// The body of `POST transaction/profile`.
pub(in crate::simulator) static DEBIT: &[Field] = &[
    required("serviceId", Kind::Format(Format::UuidV4)),
    required("paymentProfileId", Kind::Format(Format::UuidV4)),
    required("amount", AMOUNT),
    required("currency", Kind::OneOf(CURRENCIES)),
    required("orderId", pattern(100, ORDER_ID)),
    optional("title", pattern(255, TITLE)),
    optional("notificationUrl", Kind::Format(Format::NotificationUrl)),
    optional("data", Kind::Object(DATA)),
    optional("invoice", Kind::Object(INVOICE)),
];

/// The body of `POST profile/deactivate`.
pub(in crate::simulator) static DEACTIVATE: &[Field] =
    &[required("paymentProfileId", Kind::Format(Format::UuidV4))];

/// The body of `POST payment`.
pub(in crate::simulator) static PAYMENT: &[Field] = &[
    required("serviceId", Kind::Format(Format::UuidV4)),
    required("amount", AMOUNT),
    required("currency", Kind::OneOf(CURRENCIES)),
    required("orderId", pattern(100, ORDER_ID)),
    required("customer", Kind::Object(CUSTOMER)),
    optional("title", pattern(255, TITLE)),
    optional("additionalDescription", pattern(255, DESCRIPTION)),
    optional("visibleMethod", Kind::List(&Kind::OneOf(VISIBLE_METHODS))),
    optional("preselectMethodCode", Kind::OneOf(METHOD_CODES)),
    optional("returnUrl", Kind::Format(Format::Url)),
    optional("successReturnUrl", Kind::Format(Format::Url)),
    optional("failureReturnUrl", Kind::Format(Format::Url)),
    optional("notificationUrl", Kind::Format(Format::NotificationUrl)),
    optional("validTo", VALID_TO),
    optional("billing", Kind::Object(BILLING)),
    optional("shipping", Kind::Object(SHIPPING)),
    optional("cart", Kind::Object(CART)),
    optional("multipayout", PAYOUTS),
    optional("invoice", Kind::Object(INVOICE)),
    optional("isKsef", Kind::Boolean),
];

/// The body of `POST payment/cancel`.
pub(in crate::simulator) static CANCEL: &[Field] = &[
    required("serviceId", Kind::Format(Format::UuidV4)),
    required("paymentId", Kind::Format(Format::UuidV4)),
];

/// What is bought, for ING Lease Now.
static CART: &[Field] = &[required("items", Kind::List(&Kind::Object(ITEM)))];

static ITEM: &[Field] = &[
    required("id", ANY_TEXT),
    required("name", ANY_TEXT),
    required("amount", AMOUNT_OR_ZERO),
    required("tax", Kind::Number),
    required(
        "taxStake",
        Kind::NumberOrWord(
            &[23, 22, 8, 7, 5, 3, 0],
            &[
                "TAX_EXEMPT",
                "TAX_NOT_LIABLE",
                "TAX_REVERSE_CHARGE",
                "TAX_EXCLUDING",
            ],
        ),
    ),
    required(
        "quantity",
        Kind::Integer {
            min: 1,
            max: i64::MAX,
        },
    ),
    required("url", Kind::Format(Format::Url)),
    required("categoryId", ANY_TEXT),
    optional("unit", text(35)),
    optional("state", Kind::OneOf(&["NEW", "USED"])),
    optional("discount", Kind::Object(DISCOUNT)),
];

static DISCOUNT: &[Field] = &[
    optional("amount", AMOUNT_OR_ZERO),
    optional("tax", Kind::Number),
];

const AMOUNT_OR_ZERO: Kind = Kind::Integer {
    min: 0,
    max: AMOUNT_MAX,
};

/// The body of `POST transaction/{id}/refund`.
pub(in crate::simulator) static REFUND: &[Field] = &[
    required("type", Kind::OneOf(&["refund"])),
    required("serviceId", Kind::Format(Format::UuidV4)),
    required("amount", AMOUNT),
    optional("title", pattern(255, TITLE)),
    optional("sendRefundConfirmationEmail", Kind::Boolean),
];

/// The body of `POST transaction/{id}/can-refund`.
pub(in crate::simulator) static CAN_REFUND: &[Field] = &[required("amount", AMOUNT)];

static DATA: &[Field] = &[required("multipayout", PAYOUTS)];

/// The body of `POST transaction`.
pub(in crate::simulator) static TRANSACTION: &[Field] = &[
    required("type", Kind::OneOf(&["sale"])),
    required("serviceId", Kind::Format(Format::UuidV4)),
    required("amount", AMOUNT),
    required("currency", Kind::OneOf(CURRENCIES)),
    required("orderId", pattern(100, ORDER_ID)),
    required("paymentMethod", Kind::OneOf(METHODS)),
    required("paymentMethodCode", Kind::OneOf(METHOD_CODES)),
    required("successReturnUrl", Kind::Format(Format::Url)),
    required("failureReturnUrl", Kind::Format(Format::Url)),
    optional("notificationUrl", Kind::Format(Format::NotificationUrl)),
    optional("title", pattern(255, TITLE)),
    optional("additionalDescription", pattern(255, DESCRIPTION)),
    optional("validTo", VALID_TO),
    optional("blikCode", text(6)),
    optional("clientIp", Kind::Format(Format::IpAddress)),
    required("customer", Kind::Object(CUSTOMER)),
    optional("billing", Kind::Object(BILLING)),
    optional("shipping", Kind::Object(SHIPPING)),
    optional("card", Kind::Object(CARD)),
    optional("additionalData", Kind::Object(ADDITIONAL_DATA)),
    optional("visibleMethod", Kind::List(&Kind::OneOf(VISIBLE_METHODS))),
    optional("invoice", Kind::Object(INVOICE)),
    optional("profileType", Kind::OneOf(&["FIRST", "STANDARD"])),
];

/// When an unpaid transaction or link expires, in seconds.
const VALID_TO: Kind = Kind::IntegerOrNull { min: 1 };

static METHODS: &[&str] = &[
    "blik",
    "pbl",
    "ing",
    "card",
    "wallet",
    "imoje_paylater",
    "wt",
    "imoje_installments",
];

static VISIBLE_METHODS: &[&str] = &[
    "pbl",
    "card",
    "wallet",
    "blik",
    "imoje_paylater",
    "wt",
    "lease",
    "imoje_installments",
];

static METHOD_CODES: &[&str] = &[
    "blik",
    "imoje_twisto",
    "paypo",
    "blik_paylater",
    "pragma_go",
    "gpay",
    "applepay",
    "visa_mobile",
    "paypal",
    "ecom3ds",
    "oneclick",
    "recurring",
    "ing",
    "mtransfer",
    "bzwbk",
    "pekao24",
    "inteligo",
    "ipko",
    "getin",
    "noble",
    "creditagricole",
    "alior",
    "millennium",
    "citi",
    "bos",
    "bnpparibas",
    "pocztowy",
    "plusbank",
    "bs",
    "bspb",
    "nest",
    "pbs",
    "cs",
    "mp",
    "kb",
    "rf",
    "pg",
    "pf",
    "cb",
    "uc",
    "posta",
    "sporo",
    "tatra",
    "viamo",
    "vub",
    "wt",
    "wt_split",
    "inbank",
    "inbank_0",
];

/// The payer.
static CUSTOMER: &[Field] = &[
    required("firstName", pattern(100, FULL_NAME)),
    required("lastName", pattern(100, FULL_NAME)),
    required("email", Kind::Format(Format::Email)),
    optional("phone", pattern(20, PHONE)),
    optional("cid", pattern(36, CID)),
    optional("company", pattern(200, COMPANY)),
    optional(
        "locale",
        Kind::OneOf(&[
            "pl", "en", "cs", "de", "es", "fr", "it", "lt", "ru", "sk", "sl", "uk", "nl", "hu",
            "ro", "bg", "sv",
        ]),
    ),
];

static BILLING: &[Field] = &[
    required("firstName", pattern(100, FULL_NAME)),
    required("lastName", pattern(100, FULL_NAME)),
    optional("company", pattern(200, COMPANY)),
    optional("street", pattern(200, PLACE)),
    optional("city", pattern(100, PLACE)),
    optional("region", pattern(100, PLACE)),
    optional("postalCode", text(30)),
    optional("countryCodeAlpha2", text(2)),
    optional("taxId", text(12)),
];

static SHIPPING: &[Field] = &[
    required("firstName", pattern(100, FULL_NAME)),
    required("lastName", pattern(100, FULL_NAME)),
    optional("company", pattern(200, SHIPPING_COMPANY)),
    optional("street", pattern(200, PLACE)),
    optional("city", pattern(100, PLACE)),
    optional("region", pattern(100, PLACE)),
    optional("postalCode", text(30)),
    optional("countryCodeAlpha2", text(2)),
];

/// The card. Its members are not among the documents but for `cvv` and `firstTransactionId`; these are the names that clients send.
static CARD: &[Field] = &[
    optional("firstName", pattern(100, FULL_NAME)),
    optional("lastName", pattern(100, FULL_NAME)),
    optional("number", digits(12, 19)),
    optional("month", digits(2, 2)),
    optional("year", digits(2, 4)),
    optional("cvv", digits(3, 4)),
    optional("firstTransactionId", text(100)),
];

/// The browser of the payer, for 3-D Secure. The names are those that clients send.
static ADDITIONAL_DATA: &[Field] = &[required("browser", Kind::Object(BROWSER))];

static BROWSER: &[Field] = &[
    required("ip", Kind::Format(Format::IpAddress)),
    required("language", text(8)),
    required("jsEnabled", Kind::Boolean),
    required(
        "timezoneOffset",
        Kind::Integer {
            min: -840,
            max: 840,
        },
    ),
    required("userAgent", text(2048)),
    required("accept", text(2048)),
    required("javaEnabled", Kind::Boolean),
    required("screenColorDepth", Kind::Integer { min: 1, max: 48 }),
    required(
        "screenHeight",
        Kind::Integer {
            min: 0,
            max: 999_999,
        },
    ),
    required(
        "screenWidth",
        Kind::Integer {
            min: 0,
            max: 999_999,
        },
    ),
];

const fn digits(min: usize, max: usize) -> Kind {
    Kind::Text {
        min,
        max,
        pattern: Some(DIGITS),
    }
}
