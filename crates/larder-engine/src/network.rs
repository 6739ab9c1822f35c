//! The network of steps that ask for none: one of their own, where a helper of the machine gives it,
//! else the host's.

use std::sync::{Arc, Mutex, PoisonError};

use larder_exec::Network;
use larder_exec::network::{Helper, Networks};

use crate::cdi::Devices;
use crate::config::DefaultNetwork;
use crate::engine::Engine;
use crate::error::Result;
use crate::ops::host;

/// The address of the host in extra lines of `/etc/hosts`; what it is depends on the network.
pub(crate) const HOST_GATEWAY: &str = "host-gateway";
/// What it is for who has the host's network.
pub(crate) const LOOPBACK: &str = "127.0.0.1";

/// Gives networks to the steps of a run.
pub(crate) struct StepNetworks {
    chosen: DefaultNetwork,
    state: Mutex<State>,
}

enum State {
    /// No step has asked yet.
    Unknown,
    /// Helped by this.
    Own(Arc<Networks>),
    Host,
}

impl StepNetworks {
    pub(crate) fn new(chosen: DefaultNetwork) -> Self {
        Self {
            chosen,
            state: Mutex::new(State::Unknown),
        }
    }

    /// Returns a network for a step that has chosen none. The first time it is told what that is.
    ///
    /// # Errors
    /// When the helper that the configuration names does not serve.
    pub(crate) fn acquire(
        &self,
        reaches_host: bool,
        lent: Option<host::Variables<'_>>,
        tell: impl FnOnce(String),
    ) -> Result<Network> {
        let networks = {
            // Held while the first helper starts: others are to know what came of it.
            let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
            if matches!(*state, State::Unknown) {
                let (decided, choice) = self.decide(lent)?;
                *state = decided;
                tell(format!("network: {choice}"));
            }
            match &*state {
                State::Own(networks) => networks.clone(),
                State::Host | State::Unknown => return Ok(Network::Host),
            }
        };
        Ok(Network::Own(networks.acquire(reaches_host)?))
    }

    /// Decides what steps get.
    fn decide(&self, lent: Option<host::Variables<'_>>) -> Result<(State, NetworkChoice)> {
        let of_host = |because: String| (State::Host, NetworkChoice::Host { because });
        let own = |networks: Networks| {
            let choice = NetworkChoice::Own(networks.helper());
            (State::Own(networks.into()), choice)
        };
        match self.chosen {
            DefaultNetwork::Host => Ok(of_host("the configuration says so".to_owned())),
            DefaultNetwork::Helper(helper) => Ok(own(serving(helper)?)),
            DefaultNetwork::Auto => {
                if lent.is_some_and(host::has_local_proxy) {
                    return Ok(of_host("its proxy is on its loopback".to_owned()));
                }
                let installed = Helper::ALL.into_iter().filter(|it| it.find().is_some());
                let mut refusals = Vec::new();
                for helper in installed {
                    match serving(helper) {
                        Ok(networks) => return Ok(own(networks)),
                        Err(error) => refusals.push(error.to_string()),
                    }
                }
                if refusals.is_empty() {
                    let names = Helper::ALL.map(|helper| format!("`{}`", helper.name()));
                    refusals.push(format!("neither {} is installed", names.join(" nor ")));
                }
                Ok(of_host(refusals.join(", and ")))
            }
        }
    }
}

/// The network of steps that choose none. `Display` says it with the reason.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NetworkChoice {
    /// One of their own, through this helper.
    Own(Helper),
    /// The host's.
    Host {
        /// Why.
        because: String,
    },
}

impl NetworkChoice {
    /// Returns it in a word: `host`, or the name of the helper.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Own(helper) => helper.name(),
            Self::Host { .. } => "host",
        }
    }
}

impl std::fmt::Display for NetworkChoice {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Own(helper) => write!(f, "own, through `{}`", helper.name()),
            Self::Host { because } => write!(f, "the host's, since {because}"),
        }
    }
}

impl Engine {
    /// Returns the network that steps get which choose none. Starts a helper to see whether it
    /// serves.
    ///
    /// # Errors
    /// When the helper that the configuration names does not.
    pub fn network(&self) -> Result<NetworkChoice> {
        let networks = StepNetworks::new(self.config.build.network);
        networks.decide(None).map(|(_, choice)| choice)
    }

    /// Returns the devices that steps can be given, each by its name and whether that needs asking.
    pub fn devices(&self) -> Vec<String> {
        Devices::load(&self.config.cdi.directories()).list()
    }
}

/// Returns the networks of a helper, of which one is ready.
fn serving(helper: Helper) -> larder_exec::Result<Networks> {
    let networks = Networks::new(helper)?;
    networks.acquire(false).map(drop)?;
    Ok(networks)
}
