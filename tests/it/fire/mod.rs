//! The daemon under fire: instances that die, lose their connections and are lied to, at named and numbered points.
//!
//! An instance is the real workers in a runtime of their own, which reach the database and imoje only through proxies. A proxy counts
//! what leaves the process: each commit and each request. At any of them the process can be killed or its connection cut, before
//! the effect or after it. Nothing in the product knows about this.

mod database_proxy;
mod dice;
mod effects;
mod gateway_proxy;
mod held_gateway;
mod instance;
mod relay;
mod stage;

pub use database_proxy::DatabaseProxy;
pub use dice::Dice;
pub use effects::{Effects, Fault, Odds, Plan};
pub use held_gateway::HeldGateway;
pub use instance::{Instance, Stepped};
pub use stage::Stage;
