//! SIGHUP: the config file, read again. `systemctl reload xgre` runs `xgre apply` instead, which can fail.

use std::path::Path;

use tracing::{error, info};

use crate::{config, instance::Instance, model::Desired, plan::Step};

use super::{apply::When, world::World};

impl World {
    /// Applies the config file, or leaves everything as it is and says why in the log.
    pub async fn reload(&mut self, config: &Path, instance: &Instance) {
        self.service.reloading();
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
        self.service.reloaded();
    }
}

fn wanted(config: &Path) -> Result<Desired, String> {
    config::load(config).map_err(|error| format!("{:?}", miette::Report::new(error)))
}
