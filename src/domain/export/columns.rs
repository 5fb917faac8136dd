//! The columns of an export, and where they stand in a file.

use std::fmt;
use std::str::FromStr;

use crate::domain::enrolment::shown;
use crate::domain::export::Rules;

/// A column that is read. All others are passed over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Column {
    /// imoje's id of the transaction.
    TransactionId,
    /// What imoje was told as `orderId`.
    OrderId,
    /// The amount in minor units.
    AmountMinor,
    /// The amount with its decimals, when there is no `amount_minor`.
    Amount,
    /// ISO 4217.
    Currency,
    /// imoje's word for where the transaction stands.
    Status,
    /// Whether it is a sale or a refund.
    Type,
    /// The shop, by its name in the configuration.
    Shop,
    /// The shop, by imoje's id of it.
    ServiceId,
    /// When imoje heard of it.
    CreatedAt,
}

impl Column {
    /// All of them, in the order of the documentation.
    pub const ALL: [Column; 10] = [
        Column::TransactionId,
        Column::OrderId,
        Column::AmountMinor,
        Column::Amount,
        Column::Currency,
        Column::Status,
        Column::Type,
        Column::Shop,
        Column::ServiceId,
        Column::CreatedAt,
    ];

    /// Those without which nothing can be compared; one of the two amounts as well.
    const REQUIRED: [Column; 4] = [
        Column::TransactionId,
        Column::OrderId,
        Column::Currency,
        Column::Status,
    ];

    /// Its name in a header.
    pub const fn name(self) -> &'static str {
        match self {
            Column::TransactionId => "transaction_id",
            Column::OrderId => "order_id",
            Column::AmountMinor => "amount_minor",
            Column::Amount => "amount",
            Column::Currency => "currency",
            Column::Status => "status",
            Column::Type => "type",
            Column::Shop => "shop",
            Column::ServiceId => "service_id",
            Column::CreatedAt => "created_at",
        }
    }

    fn place(self) -> usize {
        let mut all = Column::ALL.into_iter();
        all.position(|column| column == self)
            .expect("it is one of them")
    }
}

impl fmt::Display for Column {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// What a column is called in a file that does not call it by its name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mapping {
    /// The column.
    pub column: Column,
    /// Its name in the header.
    pub header: String,
}

impl FromStr for Mapping {
    type Err = String;

    /// Reads `order_id=Numer zamówienia`.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (name, header) = text
            .split_once('=')
            .ok_or("say NAME=HEADER, like order_id=Zamówienie")?;
        let mut all = Column::ALL.into_iter();
        let column = all
            .find(|column| column.name() == name.trim())
            .ok_or_else(|| {
                let names = Column::ALL.map(Column::name).join(", ");
                format!("NAME is one of {names}")
            })?;
        match header.trim() {
            "" => Err("HEADER is empty".to_owned()),
            header => Ok(Self {
                column,
                header: header.to_owned(),
            }),
        }
    }
}

/// Where the columns stand in a file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Layout {
    places: [Option<usize>; Column::ALL.len()],
    width: usize,
}

impl Layout {
    /// Reads a header. A mapping comes before the name of its column.
    ///
    /// # Errors
    /// Everything that is wrong with it.
    pub fn of(header: &[&str], mappings: &[Mapping], rules: &Rules) -> Result<Self, Vec<String>> {
        let mut layout = Self {
            width: header.len(),
            ..Self::default()
        };
        let mut faults = Vec::new();
        for column in Column::ALL {
            let mapping = mappings.iter().rfind(|mapping| mapping.column == column);
            let name = mapping.map_or(column.name(), |mapping| &mapping.header);
            let is_it = |cell: &&str| {
                let cell = cell.trim();
                match mapping {
                    Some(_) => cell == name,
                    None => cell.eq_ignore_ascii_case(name),
                }
            };
            let mut places = (0..).zip(header).filter(|(_, cell)| is_it(cell));
            layout.places[column.place()] = places.next().map(|(place, _)| place);
            if places.next().is_some() {
                faults.push(format!("the column {name} stands in the header twice"));
            }
            if mapping.is_some() && !layout.has(column) {
                let name = shown(name).unwrap_or_default();
                faults.push(format!("there is no column {name}, which --column names"));
            }
        }
        for column in Column::REQUIRED {
            if !layout.has(column) && !mappings.iter().any(|mapping| mapping.column == column) {
                faults.push(format!(
                    "the header lacks the column {column}; if it has another name there, say --column {column}=HEADER"
                ));
            }
        }
        if !layout.has(Column::AmountMinor) && !layout.has(Column::Amount) {
            faults.push(
                "the header lacks the column amount_minor (1999) or amount (19.99); if it has another name there, say \
                 --column amount_minor=HEADER or --column amount=HEADER"
                    .to_owned(),
            );
        }
        let says_shop = layout.has(Column::Shop) || layout.has(Column::ServiceId);
        if !says_shop && rules.usual_shop().is_none() {
            faults.push(
                "no column says of which shop a row is, and there are several; say --shop NAME, or --column shop=HEADER"
                    .to_owned(),
            );
        }
        if faults.is_empty() {
            Ok(layout)
        } else {
            Err(faults)
        }
    }

    /// How many cells a row has.
    pub fn width(&self) -> usize {
        self.width
    }

    /// Whether the file has this column.
    pub fn has(&self, column: Column) -> bool {
        self.places[column.place()].is_some()
    }

    /// What stands in the column of a row; an empty text is none.
    pub(super) fn text<'a>(&self, column: Column, row: &[&'a str]) -> Option<&'a str> {
        let text = row.get(self.places[column.place()]?)?.trim();
        (!text.is_empty()).then_some(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::export::tests::rules;

    const HEADER: [&str; 5] = [
        "transaction_id",
        "order_id",
        "amount_minor",
        "currency",
        "status",
    ];

    #[test]
    fn columns_stand_anywhere_among_others_and_may_have_other_names() {
        let header = [
            "Kwota",
            "x",
            "Status ",
            "currency",
            "Zamówienie",
            "TRANSACTION_ID",
        ];
        let mappings =
            ["amount=Kwota", " order_id = Zamówienie "].map(|text| text.parse().unwrap());
        let layout = Layout::of(&header, &mappings, &rules()).unwrap();
        let row = ["49,00", "", " settled ", "PLN", "cykl-1", "t"];
        assert_eq!(layout.width(), 6);
        assert_eq!(layout.text(Column::Amount, &row), Some("49,00"));
        assert_eq!(layout.text(Column::OrderId, &row), Some("cykl-1"));
        assert_eq!(layout.text(Column::Status, &row), Some("settled"));
        assert_eq!(layout.text(Column::TransactionId, &row), Some("t"));
        assert_eq!(layout.text(Column::Type, &row), None);
        assert!(!layout.has(Column::CreatedAt));
    }

    #[test]
    fn everything_that_is_wrong_with_a_header_is_told_at_once() {
        let mappings = ["status=Stan".parse().unwrap()];
        assert_eq!(
            Layout::of(
                &["order_id", "order_id", "currency", "status"],
                &mappings,
                &rules()
            )
            .unwrap_err(),
            [
                "the column order_id stands in the header twice",
                "there is no column \"Stan\", which --column names",
                "the header lacks the column transaction_id; if it has another name there, say --column transaction_id=HEADER",
                "the header lacks the column amount_minor (1999) or amount (19.99); if it has another name there, say \
                 --column amount_minor=HEADER or --column amount=HEADER",
            ]
        );
        assert!(Layout::of(&HEADER, &[], &rules()).is_ok());
        let mut two = rules();
        two.shops.push(two.shops[0].clone());
        let faults = Layout::of(&HEADER, &[], &two).unwrap_err();
        assert!(faults[0].contains("--shop NAME"), "{faults:?}");
        two.shop = Some(two.shops[0].name.clone());
        assert!(Layout::of(&HEADER, &[], &two).is_ok());
    }

    #[test]
    fn a_mapping_names_a_column_that_there_is() {
        assert_eq!(
            "amount_minor=A=B".parse(),
            Ok(Mapping {
                column: Column::AmountMinor,
                header: "A=B".to_owned()
            })
        );
        for text in ["", "status", "status=", "status= ", "Status=A", "order=A"] {
            assert!(text.parse::<Mapping>().is_err(), "{text:?}");
        }
    }
}
