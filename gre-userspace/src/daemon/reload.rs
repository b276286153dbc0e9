//! SIGHUP (`systemctl reload xgre`): the config file, read again.

use std::path::Path;

use sd_notify::NotifyState;
use tracing::{error, info};

use crate::{config, instance::Instance, model::Desired, plan::Step};

use super::{apply::When, world::World};

impl World {
    /// Applies the config file, or leaves everything as it is and says why in the log.
    pub async fn reload(&mut self, config: &Path, instance: &Instance) {
        // Without systemd there is nobody to notify.
        if let Ok(now) = NotifyState::monotonic_usec_now() {
            let _ = sd_notify::notify(&[NotifyState::Reloading, now]);
        }
        match wanted(config) {
            Ok(wanted) => match self.apply(wanted, instance, When::Now).await {
                Ok(steps) if steps.is_empty() => info!("reloaded; nothing has changed"),
                Ok(steps) => {
                    for step in steps.iter().flat_map(Step::told) {
                        info!("{step}");
                    }
                    info!(steps = steps.len(), "reloaded");
                }
                Err(refusal) => error!("not reloaded, nothing has changed: {refusal}"),
            },
            Err(why) => error!("not reloaded, nothing has changed: {why}"),
        }
        let _ = sd_notify::notify(&[NotifyState::Ready]);
    }
}

fn wanted(config: &Path) -> Result<Desired, String> {
    config::load(config).map_err(|error| format!("{:?}", miette::Report::new(error)))
}
