//! `cykl simulator`: serves the pretend imoje alone, so that a shop can try its own integration.

use std::{
    collections::HashMap,
    net::SocketAddr,
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use chrono::TimeDelta;
use tokio::signal::unix::{SignalKind, signal};
use url::Url;
use uuid::Uuid;

use crate::clock::Clock;
use crate::simulator::{Delivery, Now, Script, SimulatedShop, Simulator, SimulatorConfig};

/// Serve a pretend imoje over HTTP.
///
/// Point any client at the printed base URL: it validates every field as strictly as imoje's documents do, books
/// debits, answers reads, signs and repeats notices, and keeps a ledger that is printed on exit. No card, no account
/// and no money is involved. End it with Ctrl-C.
#[derive(Debug, clap::Args)]
#[command(after_long_help = AFTER_LONG_HELP)]
pub struct Args {
    /// Where to listen; port 0 is any free port.
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:8080")]
    pub listen: SocketAddr,

    /// What the gateway does, in TOML. Without it, every debit is pending and settles 5 simulated seconds later.
    #[arg(long, value_name = "FILE")]
    pub script: Option<PathBuf>,

    /// Where notices go when a debit names no notificationUrl. May be local and have a port.
    #[arg(long, value_name = "URL")]
    pub notify: Option<Url>,

    /// Post notices for HOST to this address over plain HTTP instead. May be repeated.
    ///
    /// imoje refuses a notificationUrl with a port or `localhost`; this is how a receiver on this machine gets them.
    #[arg(long, value_name = "HOST=ADDR", value_parser = host_and_address)]
    pub resolve: Vec<(String, SocketAddr)>,

    /// Simulated seconds for each real second. Affects when transactions settle and notices are repeated.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    pub scale: u32,

    /// Decides everything that the script leaves to chance; the same seed makes the same choices.
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub seed: u64,

    /// The merchant in the path of every call.
    #[arg(long, value_name = "ID", default_value = "simmerchant000000001")]
    pub merchant_id: String,

    /// The shop, a UUID v4.
    #[arg(
        long,
        value_name = "UUID",
        default_value = "2b8a4e1c-9d37-4f60-8a55-0c6e7d1f2a3b"
    )]
    pub service_id: Uuid,

    /// The bearer token that callers must send. Do not use a real one.
    #[arg(long, value_name = "TOKEN", default_value = "sim-token")]
    pub token: String,

    /// The key that signs notices. Do not use a real one.
    #[arg(long, value_name = "KEY", default_value = "sim-service-key-000")]
    pub service_key: String,
}

const AFTER_LONG_HELP: &str = r#"Endpoints, under /v1/merchant/{merchantId}:
  POST transaction/profile      debit a stored profile; any UUID v4 is a profile unless the script says otherwise
  POST transaction              register a card without a profile (FIRST), or debit one (STANDARD)
  GET  transaction/{id}         read a transaction
  POST transaction/{id}/refund, POST transaction/{id}/can-refund
  POST payment                  make a payment link; its page, /pay/{id}, takes the cards of imoje's sandbox
  GET  payment/{id}, POST payment/cancel
  GET  profile/id/{id}, GET profile/cid/{cid}, POST profile/deactivate, DELETE profile/id/{id}
  GET  service/{id}             is the recurring channel on line

Examples:
  cykl simulator
  cykl simulator --notify http://127.0.0.1:3000/imoje --scale 60
  cykl simulator --script config/simulator.example.toml --resolve shop.example.test=127.0.0.1:3000

  curl http://127.0.0.1:8080/v1/merchant/simmerchant000000001/transaction/profile \
    -H 'Authorization: Bearer sim-token' -H 'Content-Type: application/json' \
    -d '{"serviceId":"2b8a4e1c-9d37-4f60-8a55-0c6e7d1f2a3b","amount":4900,"currency":"PLN","orderId":"test-1",
         "paymentProfileId":"c0de0b1e-1111-4222-8333-9a4b5c6d7e8f"}'

A script that declines about a third of all debits, and takes the money of one order but loses the answer:
  [[rule]]
  when = { order_id_contains = "test-7" }
  then = { answer = { close = { booked = true } } }
  [[rule]]
  percent = 33
  then = { fate = { reject_after = { code = "CODE_51", after = "5s" } } }

What a script can say (config/simulator.example.toml shows each in use):
  repeated_orders = "book"|"refuse"                             a debit under an order id that has a transaction already
  [channel] currencies = ["PLN"], min = N, max = N              what GET service tells and debits are held to
  [card_data] allowed, standard_needs_all                       what debits without a profile may and must say
  fate      "settle_at_once", { settle_after = "5s" }           the money moves
            { reject_at_once = CODE }, { reject_after = {..} }  it does not; CODE is imoje's statusCode
            { reject_then_settle = {..} }                       it does not, and later it does
            "pending_for_ever", { status = WORD }               no end; error, cancelled, authorized, new, any word
            "inactive"                                          the profile turns inactive: 400 TRX-ERROR-120301
  answer    { close = { booked = B } }, { reset = {..} }        the connection ends without an answer
            { hang = { booked = B } }                           no answer, ever
            { error = { status = N, booked = B, body = ".." } } any HTTP status; body is object, empty or html
            { redirect = {..} }, { garbage = {..} }, { truncated = {..} }, { drip = {..} }, "channel_offline"
  answer_after, bare, amount_as_text, wrong_echo, status_code_in_answer, read_lag
  notices   { copies = N, late_by = "..", before_answer, pending_last, final_only, wrong_key, algorithm,
              payment_only, forged_order = ".." }
  `booked = true` means that the call takes effect although its caller is not told.

Signature of a notice: X-Imoje-Signature: merchantid=..;serviceid=..;signature=HEX;alg=sha256
  where HEX is the hash of the raw body followed by the service key. Answer HTTP 200 with {"status":"ok"}; anything
  else is repeated: 3 times every 10 seconds, then 5 times each every 5 minutes, 1, 6 and 12 hours (simulated time).

Codes that begin with SIM-ERROR stand where imoje's documents name none; do not rely on them."#;

/// Serves until SIGINT or SIGTERM, then prints what happened. Simulated time begins at the time of this machine.
pub async fn run(args: Args) -> anyhow::Result<()> {
    let script = match &args.script {
        Some(file) => Script::read(file)?,
        None => Script::default(),
    };
    let mut interrupted = signal(SignalKind::interrupt()).context("couldn't listen for SIGINT")?;
    let mut terminated = signal(SignalKind::terminate()).context("couldn't listen for SIGTERM")?;
    let shop = SimulatedShop {
        merchant_id: args.merchant_id,
        service_id: args.service_id,
        token: args.token,
        service_key: args.service_key,
        notify_url: args.notify,
    };
    let simulator = Simulator::start(SimulatorConfig {
        listen: args.listen,
        shops: vec![shop.clone()],
        now: scaled(&machine_time(), args.scale),
        resolve: args.resolve.into_iter().collect::<HashMap<_, _>>(),
        delivery: Delivery::Automatic,
        seed: args.seed,
        script,
    })
    .await?;
    println!("{}", welcome(&simulator, &shop, args.scale));
    tokio::select! {
        _ = interrupted.recv() => {}
        _ = terminated.recv() => {}
    }
    println!("\n{}", simulator.stop().await);
    Ok(())
}

/// The time of this machine, as the simulator asks for it: it knows no clock of ours.
fn machine_time() -> Now {
    let clock = Clock::system();
    Arc::new(move || clock.now())
}

/// A clock that starts at the real time and runs `scale` times as fast.
fn scaled(now: &Now, scale: u32) -> Now {
    let (start, started) = (now(), Instant::now());
    Arc::new(move || {
        let elapsed = started
            .elapsed()
            .checked_mul(scale)
            .unwrap_or(Duration::MAX);
        let elapsed = TimeDelta::from_std(elapsed).unwrap_or(TimeDelta::MAX);
        start.checked_add_signed(elapsed).unwrap_or(start)
    })
}

fn welcome(simulator: &Simulator, shop: &SimulatedShop, scale: u32) -> String {
    let notices = match &shop.notify_url {
        Some(url) => format!("to the notificationUrl of a debit, or else to {url}"),
        None => "to the notificationUrl of a debit, or else nowhere (see --notify)".to_owned(),
    };
    format!(
        "A pretend imoje is listening. Put this into cykl.toml:\n\
         \n\
         [shops.sim]\n\
         environment = \"simulator\"\n\
         base_url = \"{}\"\n\
         merchant_id = \"{}\"\n\
         service_id = \"{}\"\n\
         token = \"{}\"\n\
         service_key = \"{}\"\n\
         \n\
         Notices go {notices}.\n\
         Simulated time passes {scale} times as fast as real time. Ctrl-C ends it and prints the ledger.",
        simulator.base_url(),
        shop.merchant_id,
        shop.service_id,
        shop.token,
        shop.service_key,
    )
}

fn host_and_address(text: &str) -> Result<(String, SocketAddr), String> {
    let (host, address) = text
        .split_once('=')
        .ok_or("expected HOST=ADDR, e.g. shop.example.test=127.0.0.1:3000")?;
    let address = address
        .parse()
        .map_err(|error| format!("address `{address}`: {error}"))?;
    Ok((host.to_owned(), address))
}

#[cfg(test)]
mod tests {
    use chrono::DateTime;
    use clap::{Args as _, Command, FromArgMatches as _};

    use super::*;

    fn parse(line: &[&str]) -> Result<Args, clap::Error> {
        let command = Args::augment_args(Command::new("simulator"));
        Args::from_arg_matches(&command.try_get_matches_from([&["simulator"], line].concat())?)
    }

    #[test]
    fn the_defaults_are_those_of_the_simulated_shop() {
        let args = parse(&[]).unwrap();
        let shop = SimulatedShop::default();
        assert_eq!(
            (
                args.merchant_id,
                args.service_id,
                args.token,
                args.service_key
            ),
            (
                shop.merchant_id,
                shop.service_id,
                shop.token,
                shop.service_key
            )
        );
    }

    #[test]
    fn a_host_is_given_with_its_address() {
        let args = parse(&[
            "--resolve",
            "a.test=127.0.0.1:1",
            "--resolve",
            "b.test=[::1]:2",
        ])
        .unwrap();
        assert_eq!(
            args.resolve[1],
            ("b.test".to_owned(), "[::1]:2".parse().unwrap())
        );
        assert!(parse(&["--resolve", "a.test"]).is_err());
        assert!(parse(&["--scale", "0"]).is_err());
    }

    #[test]
    fn the_script_in_the_help_is_one() {
        let script = AFTER_LONG_HELP
            .split("loses the answer:\n")
            .nth(1)
            .unwrap()
            .split("\n\n")
            .next()
            .unwrap();
        assert_eq!(Script::parse(script).unwrap().rules.len(), 2);
    }

    #[test]
    fn a_scaled_clock_starts_now_and_does_not_overflow() {
        let start = DateTime::from_timestamp(1_790_000_000, 0).unwrap();
        let now: Now = Arc::new(move || start);
        let clock = scaled(&now, u32::MAX);
        assert!(clock() >= start);
    }

    #[tokio::test]
    async fn the_welcome_is_a_block_for_the_configuration() {
        let now: Now = Arc::new(|| DateTime::UNIX_EPOCH);
        let simulator = Simulator::start(SimulatorConfig::new(now)).await.unwrap();
        let text = welcome(&simulator, &SimulatedShop::default(), 1);
        let block = text.split("\n\n").nth(1).unwrap();
        let source = config::File::from_str(block, config::FileFormat::Toml);
        let parsed = config::Config::builder()
            .add_source(source)
            .build()
            .unwrap();
        assert_eq!(
            parsed.get_string("shops.sim.base_url").unwrap(),
            simulator.base_url()
        );
        assert_eq!(
            parsed.get_string("shops.sim.environment").unwrap(),
            "simulator"
        );
    }
}
