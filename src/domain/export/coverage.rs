//! Which debits an export must have: those of the time that it covers, but for its edges.

use chrono::{NaiveDate, NaiveTime, TimeDelta};

use crate::domain::calendar::instant;
use crate::domain::export::{Export, Rules, Shop, Span};
use crate::domain::shop::ShopName;

/// How far from the ends of what an export covers nothing is missed in it: its zone may be another than is thought, imoje's
/// clock differs from ours, and a debit is sent some time after its permit.
const MARGIN: TimeDelta = TimeDelta::days(1);

/// What an export is said to cover, in whole days; an end that is not said is that of its rows.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Days {
    /// The first day.
    pub from: Option<NaiveDate>,
    /// The last day.
    pub to: Option<NaiveDate>,
}

/// What an export covers of a shop.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Coverage {
    /// The shop.
    pub shop: ShopName,
    /// All that it covers.
    pub covered: Span,
    /// A debit whose permit is from this time, and before that one, must be in it.
    pub complete: Span,
}

/// Why nobody knows what must be in an export.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CoverageError {
    /// No row names a shop of ours.
    #[error("no row of the export says of which shop it is")]
    NoShop,
    /// Neither the rows nor anybody else says it.
    #[error("the export does not say which time it covers of shop {0}")]
    Undated(ShopName),
    /// It is all edge.
    #[error(
        "the export covers too little of shop {0}, {from} to {to}: of its first and last day nothing can be said to be missing",
        from = .1.from, to = .1.to
    )]
    TooShort(ShopName, Span),
}

/// What an export covers of each of its shops.
///
/// # Errors
/// [`CoverageError`] when that is not known of one of them, or less than can be compared.
pub fn coverage(
    export: &Export,
    rules: &Rules,
    days: Days,
) -> Result<Vec<Coverage>, CoverageError> {
    let usual = rules.usual_shop().filter(|_| export.spans.is_empty());
    let shown = rules.shops.iter();
    let shown = shown.filter(|shop| export.spans.contains_key(&shop.name));
    let all: Vec<_> = shown
        .chain(usual)
        .map(|shop| of_shop(shop, export, days))
        .collect::<Result<_, _>>()?;
    if all.is_empty() {
        return Err(CoverageError::NoShop);
    }
    Ok(all)
}

fn of_shop(shop: &Shop, export: &Export, days: Days) -> Result<Coverage, CoverageError> {
    let rows = export.spans.get(&shop.name).copied().flatten();
    let begin_of = |day: NaiveDate| instant(shop.zone, day.and_time(NaiveTime::MIN));
    let from = days.from.map(begin_of).or(rows.map(|rows| rows.from));
    let to = days
        .to
        .map(|day| begin_of(day.succ_opt().unwrap_or(day)))
        .or(rows.map(|rows| rows.to));
    let (Some(from), Some(to)) = (from, to) else {
        return Err(CoverageError::Undated(shop.name.clone()));
    };
    let covered = Span { from, to };
    let complete = covered
        .without_edges()
        .ok_or_else(|| CoverageError::TooShort(shop.name.clone(), covered))?;
    Ok(Coverage {
        shop: shop.name.clone(),
        covered,
        complete,
    })
}

impl Span {
    /// What is left when the edges are taken off, if anything is.
    fn without_edges(self) -> Option<Span> {
        let from = self.from.checked_add_signed(MARGIN)?;
        let to = self.to.checked_sub_signed(MARGIN)?;
        (from < to).then_some(Span { from, to })
    }
}
