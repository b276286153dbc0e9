//! The JSON schema of config files: what an editor can check and complete. What depends on several
//! keys, or on the machine, only `xgre check` and the daemon know.

use schemars::{Schema, SchemaGenerator, generate::SchemaSettings, json_schema};
use serde_json::Value;

use super::File;
use crate::model::{FlowLabel, Mss};

/// Draft 2020-12.
pub fn schema() -> Schema {
    let mut schema = SchemaSettings::draft2020_12().into_generator().into_root_schema_for::<File>();
    // Keys that have another name, which serde alone knows of.
    if let Some(Value::Object(keys)) = schema.pointer_mut("/$defs/TunnelTable/properties") {
        for (key, alias) in [("ttl", "hoplimit"), ("tos", "tclass")] {
            if let Some(value) = keys.get(key).cloned() {
                keys.insert(alias.to_owned(), value);
            }
        }
    }
    schema
}

pub(super) fn device(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "string", "minLength": 1, "maxLength": 15, "pattern": "^[^/:\\s]+$" })
}

pub(super) fn adopt(generator: &mut SchemaGenerator) -> Schema {
    let name = device(generator);
    let element = json_schema!({
        "anyOf": [
            name,
            {
                "type": "object",
                "properties": {
                    "name": name,
                    "netfilter": { "enum": ["respect", "bypass"] },
                    "off": { "type": "boolean" }
                },
                "required": ["name"],
                "additionalProperties": false
            }
        ]
    });
    json_schema!({ "anyOf": [{ "const": "all" }, { "type": "array", "items": element }] })
}

pub(super) fn group(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "string", "maxLength": 32, "pattern": "^[A-Za-z_][A-Za-z0-9_.$-]*$" })
}

pub(super) fn ttl(_: &mut SchemaGenerator) -> Schema {
    number_or(1, 255, &["inherit"])
}

pub(super) fn tos(_: &mut SchemaGenerator) -> Schema {
    let mut schema = number_or(0, 252, &["inherit"]);
    schema.insert("multipleOf".to_owned(), 4.into());
    schema
}

pub(super) fn key(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "anyOf": [
            { "type": "integer", "minimum": 0, "maximum": u32::MAX },
            { "type": "string", "pattern": r"^(\d+|\d+\.\d+\.\d+\.\d+)$" }
        ]
    })
}

pub(super) fn seq_mode(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "enum": ["linux", "rfc2890"] })
}

pub(super) fn encap_limit(_: &mut SchemaGenerator) -> Schema {
    number_or(0, 255, &["none"])
}

pub(super) fn flow_label(_: &mut SchemaGenerator) -> Schema {
    number_or(0, FlowLabel::MAX, &["inherit"])
}

pub(super) fn mss(_: &mut SchemaGenerator) -> Schema {
    number_or((*Mss::RANGE.start()).into(), (*Mss::RANGE.end()).into(), &["auto", "off"])
}

pub(super) fn mtu(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "integer", "minimum": 68, "maximum": 65_535 })
}

pub(super) fn addresses(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "array",
        "items": {
            "anyOf": [
                { "type": "string" },
                {
                    "type": "object",
                    "properties": { "local": { "type": "string" }, "peer": { "type": "string" } },
                    "required": ["local"],
                    "additionalProperties": false
                }
            ]
        }
    })
}

fn number_or(minimum: u32, maximum: u32, words: &[&str]) -> Schema {
    json_schema!({
        "anyOf": [
            { "type": "integer", "minimum": minimum, "maximum": maximum },
            { "enum": words }
        ]
    })
}
