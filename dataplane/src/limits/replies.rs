//! Bounds of our own answers.

use super::{Bound, bound};

/// Body of a `respond` route, bytes.
pub const RESPOND_BODY: usize = 128 * 1024;
/// Body of an error page, bytes: with its head it fits one large lease. Pages of one listener or route, and of all.
pub const ERROR_PAGE_BODY: usize = 32 * 1024;
pub const ERROR_PAGES: usize = 32;
pub const ERROR_PAGES_MAX: usize = 1024;
/// Bytes that the variables of one answer may come to: a redirect to the longest request line, every byte of it
/// percent-encoded, and as much again.
pub const RESPOND_VALUES: usize = 64 * 1024;
/// Fields of a `respond`, and bytes of their names and values with colon, space and CRLF.
pub const RESPOND_FIELDS: usize = 32;
pub const RESPOND_FIELD_BYTES: usize = 4096;
/// Bytes of a redirect's target before its variables are put in.
pub const REDIRECT_BYTES: usize = 4096;
/// Statuses of a `respond`.
pub const RESPOND_STATUS: Bound<u64> = bound(200, 200, 599);
/// Statuses of a `redirect`; 304 to 306 are not redirects and refused by control.
pub const REDIRECT_STATUS: Bound<u64> = bound(301, 308, 308);
