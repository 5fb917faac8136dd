//! A payer with a real browser: Chromium, led by its driver over the WebDriver protocol (W3C, WebDriver, chapter 10 and following).
//!
//! Left out where there is no `chromedriver`, unless `CYKL_BROWSER=required`; `.ci/install-browser` installs it.

use std::process::Stdio;

use cykl::simulator::Script;
use cykl::store::registrations::WantedPayment;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

use crate::card_data::{register_card, with_proxy};
use crate::harness::World;
use crate::registering::{GOOD, link, registering};
use crate::scratch;
use crate::site::until;

/// The key of a reference to an element (WebDriver, section 12.1).
const ELEMENT: &str = "element-6066-11e4-a52e-4f735466cecf";

/// A browser with one window. It ends with the test.
struct Browser {
    client: reqwest::Client,
    session: String,
    _driver: Child,
    _profile: TempDir,
}

impl Browser {
    /// Starts one, if there is one.
    async fn start() -> Option<Self> {
        cykl::gateway::install_crypto();
        let profile = tempfile::tempdir_in(scratch::directory()).unwrap();
        let started = Command::new("chromedriver")
            .arg("--port=0")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn();
        let mut driver = match started {
            Ok(driver) => driver,
            Err(error) => {
                let is_required =
                    std::env::var_os("CYKL_BROWSER").is_some_and(|it| it == "required");
                assert!(!is_required, "chromedriver: {error}");
                println!("left out: there is no chromedriver ({error})");
                return None;
            }
        };
        let address = address_of(&mut driver).await;
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        let options = json!({ "args": [
            "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--window-size=900,900",
            format!("--user-data-dir={}", profile.path().display()),
        ]});
        let wanted =
            json!({ "capabilities": { "alwaysMatch": { "goog:chromeOptions": options } } });
        let made = post(&client, &format!("{address}/session"), &wanted).await;
        let id = made["sessionId"].as_str().unwrap();
        Some(Self {
            session: format!("{address}/session/{id}"),
            client,
            _driver: driver,
            _profile: profile,
        })
    }

    async fn command(&self, path: &str, body: Value) -> Value {
        post(&self.client, &format!("{}/{path}", self.session), &body).await
    }

    async fn open(&self, url: &str) {
        self.command("url", json!({ "url": url })).await;
    }

    async fn element(&self, selector: &str) -> String {
        let query = json!({ "using": "css selector", "value": selector });
        let found = self.command("element", query).await;
        found[ELEMENT].as_str().unwrap().to_owned()
    }

    /// Clicks on an element.
    async fn click(&self, selector: &str) {
        let element = self.element(selector).await;
        self.command(&format!("element/{element}/click"), json!({}))
            .await;
    }

    async fn type_into(&self, selector: &str, text: &str) {
        let element = self.element(selector).await;
        self.command(&format!("element/{element}/clear"), json!({}))
            .await;
        self.command(&format!("element/{element}/value"), json!({ "text": text }))
            .await;
    }

    async fn text(&self) -> String {
        let script = json!({ "script": "return document.body.innerText", "args": [] });
        let text = self.command("execute/sync", script).await;
        text.as_str().unwrap().to_owned()
    }

    /// Waits until the page says this.
    async fn shows(&self, text: &str) {
        until(text, async || self.text().await.contains(text)).await;
    }

    /// How far the page reaches beyond the window to the right.
    async fn overflow(&self) -> i64 {
        let script =
            "return document.documentElement.scrollWidth - document.documentElement.clientWidth";
        let width = self
            .command("execute/sync", json!({ "script": script, "args": [] }))
            .await;
        width.as_i64().unwrap()
    }
}

/// Where the driver listens, as it says itself.
async fn address_of(driver: &mut Child) -> String {
    let mut lines = BufReader::new(driver.stdout.take().unwrap()).lines();
    while let Some(line) = lines.next_line().await.unwrap() {
        if let Some((_, port)) = line.split_once("started successfully on port ") {
            return format!("http://127.0.0.1:{}", port.trim_end_matches('.'));
        }
    }
    panic!("chromedriver never started");
}

async fn post(client: &reqwest::Client, url: &str, body: &Value) -> Value {
    let answer = client.post(url).json(body).send().await.unwrap();
    let status = answer.status();
    let mut answer: Value = answer.json().await.unwrap();
    assert!(status.is_success(), "{url}: {answer}");
    answer["value"].take()
}

#[tokio::test]
async fn a_payer_registers_a_card_in_a_browser() {
    let Some(browser) = Browser::start().await else {
        return;
    };
    let world = World::new(Script::default()).await;
    let id = registering(&world).await;
    let link = link(&world, id, WantedPayment::FirstCharge).await.unwrap();
    browser.open(link.url.as_str()).await;
    let page = browser.text().await;
    for text in [
        "No money moves here",
        "Abonament 2027-01",
        "49.00 PLN",
        "Card number",
    ] {
        assert!(page.contains(text), "{text}: {page}");
    }
    assert_eq!(browser.overflow().await, 0);
    // A card that is declined, and one that is none.
    browser
        .type_into("input[name=number]", "4444333322221111")
        .await;
    browser.click("button[value=pay]").await;
    browser.shows("The card was declined.").await;
    browser.open(link.url.as_str()).await;
    browser.type_into("input[name=number]", "4111").await;
    browser.click("button[value=pay]").await;
    browser.shows("This is not a card.").await;
    world.run_until_idle().await;
    assert_eq!(world.charges().await, Vec::<String>::new());
    browser.open(link.url.as_str()).await;
    browser.type_into("input[name=number]", GOOD).await;
    browser.click("button[value=pay]").await;
    browser.shows("Thank you, it is paid.").await;
    browser.open(link.url.as_str()).await;
    browser.shows("This link was paid").await;
    world.run_until_idle().await;
    let status: String = world.one("SELECT status::text FROM subscriptions").await;
    assert_eq!(status, "active");
    assert_eq!(world.charges().await, ["paid"]);
    world.settle_up().await;
}

#[tokio::test]
async fn a_payer_confirms_a_payment_in_a_browser() {
    let Some(browser) = Browser::start().await else {
        return;
    };
    let (world, _proxy) = with_proxy(Script::default()).await;
    let id = registering(&world).await;
    for (button, status) in [("leave", "registering"), ("confirm", "active")] {
        let made = register_card(&world, id, WantedPayment::FirstCharge).await;
        let page = made.unwrap().url.unwrap();
        browser.open(page.as_str()).await;
        let shown = browser.text().await;
        for text in [
            "Confirm the payment",
            "No money moves here",
            "Abonament 2027-01",
            "49.00 PLN",
            "It is me",
        ] {
            assert!(shown.contains(text), "{text}: {shown}");
        }
        assert_eq!(browser.overflow().await, 0);
        browser.click(&format!("button[value={button}]")).await;
        until("the payer's answer", async || {
            let ledger = world.simulator.ledger();
            let last = ledger.transactions().last().unwrap();
            ledger.status_of(last) != "pending"
        })
        .await;
        world.run_until_idle().await;
        let stands: String = world.one("SELECT status::text FROM subscriptions").await;
        assert_eq!(stands, status);
        browser.open(page.as_str()).await;
        browser.shows("no payment that waits for you").await;
    }
    assert_eq!(world.charges().await, ["paid"]);
    world.settle_up().await;
}
