//! The programs stay as small as they are, or grow because somebody has said so: `tests/programs.toml`
//! has the size of each.
//!
//! It has what the compiler makes, instructions in the object and the stack that they name. How many
//! the kernel makes of them, walks through or turns into machine code differs from kernel to kernel.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

use object::read::elf::ElfFile64;

use crate::verifier::{CALLED, Program, SECTIONS, calls, object, path, programs, stacks};

/// By program, then by what is measured of it.
type Sizes = BTreeMap<String, BTreeMap<String, i64>>;

/// What a program may grow by, in a hundred, before the file has to say so.
const MAY_GROW: i64 = 5;

#[test]
fn no_program_grows_unless_the_file_of_sizes_says_so() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let found = sizes(&object());
    let written = root.join("target/tmp/programs.toml");
    fs::create_dir_all(written.parent().unwrap()).unwrap();
    let header = "# What the compiler makes of the programs, with the functions that they call: instructions\n\
                  # (of 8 bytes), and bytes of stack as Linux 6.1 counts them.\n\n";
    fs::write(&written, format!("{header}{}", toml::to_string(&found).unwrap())).unwrap();

    let text = fs::read_to_string(root.join("tests/programs.toml")).unwrap();
    let allowed: Sizes = toml::from_str(&text).unwrap();
    let faults = faults(&allowed, &found);
    assert!(
        faults.is_empty(),
        "{}\nIf that is meant:\n    cp target/tmp/programs.toml tests/programs.toml",
        faults.join("\n")
    );
}

/// Of each program with all functions that it calls.
fn sizes(object: &ElfFile64<'static>) -> Sizes {
    let lengths: BTreeMap<String, usize> = programs(object, &[&SECTIONS[..], &[CALLED]].concat())
        .into_iter()
        .map(|Program { name, code }| (path(&name).unwrap_or(name), code.len()))
        .collect();
    let calls = calls(object);
    let size = |(name, stack): (String, i32)| {
        let functions = reached(&name, &calls);
        let instructions: usize = functions.iter().map(|function| lengths[function]).sum();
        let of = |what: &str, number: i64| (what.to_owned(), number);
        let size = [of("instructions", instructions as i64), of("stack", stack.into())];
        (name, size.into())
    };
    stacks(object).into_iter().map(size).collect()
}

/// A function and all that it comes to call.
fn reached(name: &str, calls: &[(String, String)]) -> BTreeSet<String> {
    let mut reached = BTreeSet::from([name.to_owned()]);
    let mut new = vec![name.to_owned()];
    while let Some(caller) = new.pop() {
        for (_, callee) in calls.iter().filter(|(other, _)| *other == caller) {
            if reached.insert(callee.clone()) {
                new.push(callee.clone());
            }
        }
    }
    reached
}

/// What has grown too much, has come or has gone, a sentence each.
fn faults(allowed: &Sizes, found: &Sizes) -> Vec<String> {
    let names: BTreeSet<_> = allowed.keys().chain(found.keys()).collect();
    let mut faults = Vec::new();
    for name in names {
        let (Some(allowed), Some(found)) = (allowed.get(name), found.get(name)) else {
            let place = if found.contains_key(name) { "tests/programs.toml" } else { "the object" };
            faults.push(format!("{name} is not in {place}"));
            continue;
        };
        for (what, &number) in found {
            let allowed = allowed.get(what).copied().unwrap_or(0);
            if number * 100 > allowed * (100 + MAY_GROW) {
                faults.push(format!("{name}: {number} {what}, {allowed} in tests/programs.toml"));
            }
        }
    }
    faults
}

#[test]
fn five_in_a_hundred_more_is_no_fault_and_six_is() {
    let sizes = |instructions, stack| -> Sizes {
        let size = [("instructions".to_owned(), instructions), ("stack".to_owned(), stack)];
        [("xgre_xdp".to_owned(), size.into())].into()
    };
    let allowed = sizes(1000, 200);
    assert!(faults(&allowed, &sizes(1050, 210)).is_empty());
    assert!(faults(&allowed, &sizes(10, 20)).is_empty());
    assert_eq!(
        faults(&allowed, &sizes(1060, 224)),
        [
            "xgre_xdp: 1060 instructions, 1000 in tests/programs.toml",
            "xgre_xdp: 224 stack, 200 in tests/programs.toml"
        ]
    );
    assert_eq!(faults(&allowed, &Sizes::new()), ["xgre_xdp is not in the object"]);
    assert_eq!(faults(&Sizes::new(), &allowed), ["xgre_xdp is not in tests/programs.toml"]);
}
