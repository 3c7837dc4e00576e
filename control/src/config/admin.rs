//! `[admin]`: where the admin API listens, and what whoever asks must know.

use super::keys::ReloadEffect::{NewConnections, NextExchange};
use super::keys::{Key, Section, Shape};
use super::tree::{Item, Table};
use super::{address, template};
use crate::admin::guard::{Guard, Token};
use dataplane::io::Address;
use dataplane::limits;
use std::os::unix::fs::PermissionsExt as _;

pub(super) static SECTION: Section = Section {
    path: "admin",
    shared: false,
    doc: "The admin API, by which the commands of ringway speak to the running process. See \
          [operations/admin.md](operations/admin.md).",
    keys: &[
        Key::new(
            "address",
            Shape::Free("an address, as \"127.0.0.1:9901\" or \"unix:/run/ringway/admin.sock\""),
            NewConnections,
            "Where it listens. One that other machines can reach needs `token`.",
        )
        .absent("required"),
        Key::new(
            "socket_mode",
            Shape::Free("octal digits, as \"0660\""),
            NewConnections,
            "Permissions of the file of a unix socket: who may write to it may ask, and its group is that of its directory where \
             that is setgid.",
        )
        .absent("\"0600\""),
        Key::new(
            "token",
            Shape::Free("{ file = \"PATH\" } or { env = \"NAME\" }"),
            NextExchange,
            "Where the token stands, 16 to 1024 printable characters, that whatever changes something must bring \
             (`Authorization: Bearer TOKEN`). Never the token itself: configurations are read by many.",
        )
        .absent("none"),
        Key::new(
            "protect",
            Shape::Word(&["changes", "all"], &[]),
            NextExchange,
            "What needs the token: what changes something or may show what is secret (`/v1/export`, `/v1/plan`), or everything but \
             `/live`, `/ready` and the page.",
        ),
    ],
};

/// `[admin]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AdminSettings {
    pub address: Address,
    /// Of a unix socket's file.
    pub mode: u32,
    pub guard: Guard,
}

pub(super) fn read(root: &Table<'_>) -> Option<AdminSettings> {
    root.get("admin").filter(|item| item.value.is_table())?;
    let table = root.table("admin");
    let item = table.need("address");
    let address = item.as_ref().and_then(address::admin);
    let mode = match table.get("socket_mode") {
        Some(item) => {
            if matches!(address, Some(Address::Ip(_))) {
                item.error("is for unix sockets, and this is none");
            }
            address::mode(&item).unwrap_or(limits::ADMIN_SOCKET_MODE)
        }
        None => limits::ADMIN_SOCKET_MODE,
    };
    let token = table.get("token");
    let guard = Guard { token: token.as_ref().and_then(read_token), all: table.word("protect") == "all" };
    if let (Some(item), None, true) = (table.get("protect"), &token, guard.all) {
        item.error("needs `token`");
    }
    if let (Some(item), Some(Address::Ip(to))) = (&item, &address)
        && to.ip().is_none_or(|ip| !ip.is_loopback())
    {
        let local = Some(format!("127.0.0.1:{}", to.port()));
        match token {
            None => item.error_near("other machines may reach this address: it needs `token`", local),
            Some(_) => item
                .warn("other machines may reach this address, and the token goes there unencrypted", local),
        }
    }
    Some(AdminSettings { address: address?, mode, guard })
}

fn read_token(item: &Item<'_>) -> Option<Token> {
    if item.value.is_str() {
        item.error_near(
            "stands in the configuration, which many may read",
            Some("{ file = \"/etc/ringway/token\" }".to_owned()),
        );
        return None;
    }
    let bound = limits::ADMIN_TOKEN_BYTES;
    let text = template::string(item, bound.max)?;
    let text = text.trim_end_matches(['\r', '\n']);
    if text.len() < bound.min {
        item.error(format!(
            "has {} characters, and {} at least keep it from being guessed",
            text.len(),
            bound.min
        ));
        return None;
    }
    let file = item.value.as_table().and_then(|table| table.get("file")?.get_ref().as_str());
    if file.and_then(|file| std::fs::metadata(file).ok()).is_some_and(|m| m.permissions().mode() & 0o007 != 0)
    {
        item.warn("anybody on this machine may read it", Some("chmod o= FILE".to_owned()));
    }
    let token = Token::new(text);
    if token.is_none() {
        item.error("has a space in it, or what is not printable ASCII");
    }
    token
}
