//! What imoje takes for each shop, asked before subscriptions are stored: an amount that it would refuse is a mistake now instead of a
//! charge that fails for ever.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::cli::context::Context;
use crate::cli::{CliError, daemon};
use crate::domain::channel::Channel;
use crate::domain::shop::ShopName;

/// How long imoje may take to answer. Storing subscriptions does not depend on it.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);

/// The recurring channels of each shop of the configuration that imoje tells about. For the others a warning says that amounts are not
/// compared.
///
/// # Errors
/// [`CliError`] with [`Exit::Config`](crate::cli::Exit::Config) when a shop cannot be asked for, whatever imoje says.
pub(super) async fn ask(context: &Context) -> Result<BTreeMap<ShopName, Vec<Channel>>, CliError> {
    let mut asked = JoinSet::new();
    for (name, shop) in &context.config.shops {
        let client = daemon::client(&context.config, shop).map_err(CliError::config)?;
        let name = name.clone();
        asked.spawn(async move {
            let told = match timeout(ANSWER_WITHIN, client.service()).await {
                Ok(Ok(service)) => service
                    .recurring
                    .ok_or_else(|| "its answer lists no channels".to_owned()),
                Ok(Err(error)) => Err(error.to_string()),
                Err(_) => Err("no answer in time".to_owned()),
            };
            (name, told)
        });
    }
    let mut channels = BTreeMap::new();
    for (name, told) in asked.join_all().await {
        match told {
            Ok(of_shop) => {
                channels.insert(name, of_shop);
            }
            Err(problem) => eprintln!(
                "warning: couldn't ask imoje what shop {name} may charge: {problem}; amounts are not compared with its limits"
            ),
        }
    }
    Ok(channels)
}
