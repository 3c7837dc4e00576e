//! `[admin]`: where the admin API listens.

use super::address;
use super::keys::ReloadEffect::NewConnections;
use super::keys::{Key, Section, Shape};
use super::tree::Table;
use dataplane::io::Address;

pub(super) static SECTION: Section = Section {
    path: "admin",
    shared: false,
    doc: "The admin API, by which the commands of ringway speak to the running process. See \
          [operations/admin.md](operations/admin.md).",
    keys: &[Key::new(
        "address",
        Shape::Free("an address, as \"127.0.0.1:9901\" or \"unix:/run/ringway/admin.sock\""),
        NewConnections,
        "Where it listens; a socket's file gets the permissions 0600. What changes something is refused on an address that \
         other machines can reach.",
    )
    .absent("required")],
};

pub(super) fn read(root: &Table<'_>) -> Option<Address> {
    root.get("admin").filter(|item| item.value.is_table())?;
    let item = root.table("admin").need("address")?;
    address::admin(&item)
}
