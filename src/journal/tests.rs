use proptest::prelude::*;

use super::*;
use crate::domain::id::{CardId, SubscriptionId};
use crate::domain::money::Currency;
use crate::domain::order_id::OrderId;

fn permit(number: u128) -> PermitRecord {
    let id = Uuid::from_u128(number);
    PermitRecord {
        attempt_id: AttemptId::from_uuid(id),
        card_id: CardId::from_uuid(Uuid::from_u128(8)),
        shop: "main".parse().unwrap(),
        order_id: OrderId {
            subscription_id: SubscriptionId::from_uuid(Uuid::from_u128(9)),
            period_no: 3,
            attempt_no: 1,
        },
        amount_minor: 4_900,
        currency: Currency::Pln,
        is_retry: false,
        permitted_at: noon(1),
    }
}

fn noon(day: u32) -> DateTime<Utc> {
    format!("2027-01-{day:02}T12:00:00.123456Z")
        .parse()
        .unwrap()
}

async fn open(folder: &Path) -> Journal {
    Journal::open(folder.join("journal"), TimeDelta::days(10), noon(1))
        .await
        .unwrap()
}

async fn files_in(folder: &Path) -> Vec<PathBuf> {
    files(folder.join("journal")).await.unwrap()
}

async fn permits_in(folder: &Path) -> Vec<PermitRecord> {
    let mut permits = Vec::new();
    for file in files_in(folder).await {
        permits.extend(read(file).await.unwrap().permits);
    }
    permits
}

#[tokio::test]
async fn what_is_written_is_read_back() {
    let folder = tempfile::tempdir().unwrap();
    let journal = open(folder.path()).await;
    let transaction_id = TransactionId::from_uuid(Uuid::from_u128(77));
    journal
        .permit(vec![permit(1), permit(2)], noon(1))
        .await
        .unwrap();
    let named = (permit(1).attempt_id, transaction_id);
    journal.name(vec![named], noon(1)).await.unwrap();
    let expected = Pages {
        permits: vec![permit(1), permit(2)],
        named: [named].into(),
        damaged: 0,
    };
    let [file]: [PathBuf; 1] = files_in(folder.path()).await.try_into().unwrap();
    assert_eq!(read(file).await.unwrap(), expected);
    let newest = newest_permits(folder.path().join("journal")).await.unwrap();
    assert_eq!(newest.len(), 1);
    assert_eq!(newest[0], permit(2));
}

#[tokio::test]
async fn the_newest_permit_is_found_before_any_number_of_answers() {
    let folder = tempfile::tempdir().unwrap();
    let journal = open(folder.path()).await;
    journal.permit(vec![permit(1)], noon(1)).await.unwrap();
    let transaction_id = TransactionId::from_uuid(Uuid::from_u128(77));
    let answers = (0..2_000)
        .map(|n| (AttemptId::from_uuid(Uuid::from_u128(n)), transaction_id))
        .collect();
    journal.name(answers, noon(1)).await.unwrap();
    let newest = newest_permits(folder.path().join("journal")).await.unwrap();
    assert_eq!(newest[0], permit(1));
}

#[tokio::test]
async fn each_day_and_each_process_has_its_file_and_old_ones_are_deleted() {
    let folder = tempfile::tempdir().unwrap();
    let (one, other) = (open(folder.path()).await, open(folder.path()).await);
    one.permit(vec![permit(1)], noon(1)).await.unwrap();
    other.permit(vec![permit(2)], noon(1)).await.unwrap();
    assert_eq!(files_in(folder.path()).await.len(), 2);
    one.permit(vec![permit(3)], noon(11)).await.unwrap();
    assert_eq!(files_in(folder.path()).await.len(), 3);
    one.permit(vec![permit(4)], noon(12)).await.unwrap();
    assert_eq!(permits_in(folder.path()).await, [permit(3), permit(4)]);
}

#[tokio::test]
async fn a_file_that_cannot_be_written_permits_nothing_and_the_next_one_begins_anew() {
    let folder = tempfile::tempdir().unwrap();
    let journal = open(folder.path()).await;
    let full = OpenOptions::new().append(true).open("/dev/full").unwrap();
    {
        let mut pen = journal.0.as_ref().unwrap().lock().unwrap();
        pen.page.as_mut().unwrap().file = full;
    }
    let error = journal.permit(vec![permit(1)], noon(1)).await.unwrap_err();
    assert!(error.to_string().contains("couldn't write to"), "{error}");
    journal.permit(vec![permit(2)], noon(1)).await.unwrap();
    assert_eq!(permits_in(folder.path()).await, [permit(2)]);
}

#[tokio::test]
async fn a_folder_that_is_missing_is_empty_and_other_files_are_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    assert_eq!(newest_permits(folder.path().join("no")).await.unwrap(), []);
    let journal = open(folder.path()).await;
    fs::write(folder.path().join("journal/permits-x.journal"), "x").unwrap();
    fs::write(folder.path().join("journal/notes"), "x").unwrap();
    journal.permit(vec![permit(1)], noon(1)).await.unwrap();
    assert_eq!(files_in(folder.path()).await.len(), 1);
}

proptest! {
    /// Damage never makes a permit of something else: every permit that is read is one that was written.
    #[test]
    fn damage_loses_lines_and_invents_none(
        at in 0..2_000_usize, becomes in any::<u8>(), cut in 0..2_000_usize, lines in 1..6_u128,
    ) {
        let written: Vec<_> = (0..lines).map(permit).collect();
        let mut bytes: Vec<u8> = written
            .iter()
            .flat_map(|permit| Entry::Permit(permit.clone()).to_line().into_bytes())
            .collect();
        let at = at % bytes.len();
        bytes[at] = becomes;
        let cut = bytes.len() - cut % bytes.len();
        bytes.truncate(cut);
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("permits-2027-01-01-0.journal");
        fs::write(&path, &bytes).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let pages = runtime.block_on(read(path)).unwrap();
        prop_assert!(pages.permits.iter().all(|permit| written.contains(permit)));
        let newest = runtime.block_on(newest_permits(folder.path().to_owned())).unwrap();
        prop_assert_eq!(newest.first(), pages.permits.last());
    }
}
