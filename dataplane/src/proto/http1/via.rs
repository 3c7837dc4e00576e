//! Via (RFC 9110 7.6.3): whether a message came back to us.

use super::octets::{is_blank, list_members};
use crate::proto::{FieldName, RequestHead};

/// Whether `node`, our own pseudonym, is the received-by of any member of any Via field: then the request went in a
/// circle. Another ringway has another pseudonym, so two in a row work.
pub fn via_names(head: &RequestHead, bytes: &[u8], node: &str) -> bool {
    if !head.names.has(FieldName::Via) {
        return false;
    }
    let via = head.fields.iter().filter(|f| f.kind == FieldName::Via);
    via.flat_map(|f| list_members(f.value.of(bytes))).any(|member| {
        // received-protocol RWS received-by [ RWS comment ]
        let by = member.split(|b| is_blank(*b)).filter(|part| !part.is_empty()).nth(1);
        by.is_some_and(|by| by.eq_ignore_ascii_case(node.as_bytes()))
    })
}
