//! BPF programs: which are loaded, and what is attached to a device.

use std::collections::BTreeMap;

use aya::programs::{SchedClassifier, TcAttachType, loaded_programs};

use crate::{doctor::AttachedProgram, netlink, observed::Link};

/// A program of the machine, whichever namespace it works in.
pub(super) struct Program {
    name: String,
    /// It is machine code.
    compiled: bool,
}

/// By number; empty for who may not see them.
pub(super) type Loaded = BTreeMap<u32, Program>;

pub(super) fn loaded() -> Loaded {
    loaded_programs()
        .filter_map(Result::ok)
        .map(|program| {
            let name = program.name_as_str().unwrap_or_default().to_owned();
            (program.id(), Program { name, compiled: program.size_jitted() > 0 })
        })
        .collect()
}

/// Whether those of xgre are machine code; none where there is none.
pub(super) fn compiled(loaded: &Loaded) -> Option<bool> {
    let mut ours = loaded.values().filter(|program| program.name.starts_with("xgre_")).peekable();
    ours.peek()?;
    Some(ours.all(|program| program.compiled))
}

/// Programs and filters on a device, in the order of the hooks.
pub(super) async fn on(link: &Link, loaded: &Loaded) -> Vec<AttachedProgram> {
    let called = |id: u32| match loaded.get(&id) {
        Some(program) if !program.name.is_empty() => program.name.clone(),
        _ => "a program without a name".to_owned(),
    };
    let attached = |hook, id| AttachedProgram { hook, id: Some(id), name: called(id) };
    let mut programs: Vec<_> = link.xdp.iter().map(|xdp| attached("xdp", xdp.program_id)).collect();
    for (hook, at) in [("tc ingress", TcAttachType::Ingress), ("tc egress", TcAttachType::Egress)] {
        // Links of TC programs came with Linux 6.6.
        if let Ok((_, found)) = SchedClassifier::query_tcx(&link.name, at) {
            programs.extend(found.into_iter().map(|program| attached(hook, program.id())));
        }
    }
    let filters = netlink::filters(link.ifindex).await.unwrap_or_default();
    programs.extend(filters.into_iter().map(|filter| AttachedProgram {
        hook: if filter.egress { "tc egress" } else { "tc ingress" },
        id: filter.program,
        name: match filter.program {
            Some(id) => filter.name.unwrap_or_else(|| called(id)),
            None => filter.kind,
        },
    }));
    programs
}
