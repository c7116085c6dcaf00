//! The audit trail: one line for each operation that somebody asked for, with who, what, on which attachment,
//! from where, and how it ended. If the storage did not answer, the outcome is `unknown`, and a second line follows when the
//! storage answers after all. The lines have a target of their own, `attachd::audit`, so that they can be kept apart from
//! the log. This module must not know how a decision is made, and never sees a token.

use std::fmt;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use crate::auth::{Caller, Principal, Refused};
use crate::error::{Error, Kind, Result};
use crate::operation::Rpc;
use crate::origin::Origin;
use crate::telemetry::{self, Protocol, RequestId, Room};

/// The ids that a request names, as it names them: whether they are ids at all is part of the decision.
#[derive(Clone, Copy, Debug)]
pub struct Asked {
    /// The client.
    pub client: i64,
    /// The attachment. `None` in a listing.
    pub attachment: Option<i64>,
    /// The project, if one is named.
    pub project: Option<i64>,
    /// The portfolio, if one is named.
    pub portfolio: Option<i64>,
}

impl Asked {
    /// The ids of a request about one attachment.
    pub fn of(client: i64, attachment: i64, project: Option<i64>, portfolio: Option<i64>) -> Asked {
        Asked { client, attachment: Some(attachment), project, portfolio }
    }
}

/// One line of the audit trail, from the moment of the request on. Clones are the same line. It is written once: by the first
/// clone that learns how the request ended, else when the last clone is dropped. It is not written if the request asks for
/// nothing that the audit trail has a word for.
#[derive(Clone)]
pub struct Entry(Arc<Line>);

struct Line {
    rpc: OnceLock<Rpc>,
    protocol: Protocol,
    id: RequestId,
    from: Origin,
    about: Mutex<About>,
}

#[derive(Default)]
struct About {
    caller: Option<Caller>,
    asked: Option<Asked>,
    written: bool,
    /// Room for the line, if the request changes something.
    room: Option<Room>,
}

/// How a request ended.
struct End<'a> {
    /// `done`, `refused`, `failed`, `unknown`, or `abandoned`.
    outcome: &'static str,
    /// The stable word of the error table.
    reason: &'static str,
    why: Option<&'a str>,
    /// Whether an earlier line of the same request said that its outcome was unknown.
    late: bool,
    /// Whether the caller was sent to the storage for the content.
    redirected: bool,
    /// Why it was refused, if it was.
    refusal: Option<Kind>,
}

impl End<'_> {
    /// Whether anybody can bring about as many ends of this kind as a connection carries.
    fn is_limited(&self) -> bool {
        matches!(self.outcome, "refused" | "abandoned")
    }
}

const DONE: End<'_> = End { outcome: "done", reason: "OK", why: None, late: false, redirected: false, refusal: None };

/// The storage did not make a change whose outcome was unknown.
const NOT_DONE: End<'_> =
    End { outcome: "failed", reason: "STORAGE_UNAVAILABLE", why: None, late: false, redirected: false, refusal: None };

/// The client went away before anything was changed.
const ABANDONED: End<'_> =
    End { outcome: "abandoned", reason: "CLIENT_GONE", why: None, late: false, redirected: false, refusal: None };

impl Entry {
    /// Begins the line of a request.
    pub fn new(protocol: Protocol, id: RequestId, from: Origin) -> Entry {
        Entry(Arc::new(Line { rpc: OnceLock::new(), protocol, id, from, about: Mutex::default() }))
    }

    /// What the request asks for.
    pub fn asks_for(&self, rpc: Rpc) {
        // A second word on it would be a mistake that changes nothing.
        let _ = self.0.rpc.set(rpc);
    }

    /// The request names these ids.
    pub fn asked(&self, asked: Asked) {
        self.0.about().asked = Some(asked);
    }

    /// The request comes from this caller.
    pub fn called(&self, caller: &Principal) {
        let (issuer, subject) = (caller.issuer().to_owned(), Some(caller.subject().to_owned()));
        self.0.about().caller = Some(Caller { issuer, subject });
    }

    /// The request is about to change something, and may do so only if there is room for its line.
    ///
    /// # Errors
    /// [`Kind::Overloaded`] if there is none for too long.
    pub async fn changes(&self) -> Result<()> {
        let room = Room::wait().await?;
        self.0.about().room = Some(room);
        Ok(())
    }

    /// What was asked for has happened.
    pub fn done(&self) {
        self.0.write_once(&DONE);
    }

    /// The caller was sent to the storage for what was asked for. Whether it fetches that is not known here.
    pub fn redirected(&self) {
        self.0.write_once(&End { redirected: true, ..DONE });
    }

    /// A change whose outcome was unknown has been made after all, or will not be made. This is a second line.
    pub fn settled(&self, made: bool) {
        let end = if made { DONE } else { NOT_DONE };
        let mut about = self.0.about();
        about.room = Some(Room::beyond());
        self.0.write(&mut about, &End { late: true, ..end });
    }

    /// What was asked for has not happened.
    pub fn refused(&self, error: &Error) {
        let row = error.kind().row();
        let outcome = match error.is_unsettled() {
            true => "unknown",
            false if row.status.is_server_error() && !error.is_at_limit() => "failed",
            false => "refused",
        };
        // The caller is told less of a token than we know. The cause of any other failure belongs into the log.
        let of_token = matches!(error.kind(), Kind::TokenMissing | Kind::TokenInvalid | Kind::TokenExpired);
        // An operator can ask whoever sent a token that is signed and all the same refused.
        if let Some(caller) = Refused::caller(error) {
            self.0.about().caller = Some(caller.clone());
        }
        let why = error.log_source().filter(|_| of_token).unwrap_or_else(|| error.public_details().into_owned());
        self.0.write_once(&End {
            outcome,
            reason: row.reason,
            why: Some(&why),
            late: false,
            redirected: false,
            refusal: Some(error.kind()),
        });
    }
}

impl Line {
    fn about(&self) -> std::sync::MutexGuard<'_, About> {
        self.about.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn write_once(&self, end: &End<'_>) {
        let mut about = self.about();
        if !std::mem::replace(&mut about.written, true) {
            self.write(&mut about, end);
        }
    }

    fn write(&self, about: &mut About, end: &End<'_>) {
        match about.room.take() {
            Some(room) => room.write(|| self.tell(about, end)),
            None if end.is_limited() && !telemetry::permits_audit(end.refusal) => {}
            None => self.tell(about, end),
        }
    }

    fn tell(&self, about: &About, end: &End<'_>) {
        let Some(rpc) = self.rpc.get() else { return };
        let (caller, asked) = (about.caller.as_ref(), about.asked.as_ref());
        tracing::info!(
            target: "attachd::audit",
            request_id = %self.id,
            door = self.protocol.as_str(),
            action = rpc.row().action,
            outcome = end.outcome,
            reason = end.reason,
            why = end.why,
            issuer = caller.map(|caller| caller.issuer.as_str()),
            subject = caller.and_then(|caller| caller.subject.as_deref()),
            client_id = asked.map(|asked| asked.client),
            attachment_id = asked.and_then(|asked| asked.attachment),
            project_id = asked.and_then(|asked| asked.project),
            portfolio_id = asked.and_then(|asked| asked.portfolio),
            from = %self.from,
            via = self.from.via().map(tracing::field::display),
            late = end.late.then_some(true),
            redirected = end.redirected.then_some(true),
            "audit"
        );
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        self.write_once(&ABANDONED);
    }
}

impl fmt::Debug for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Entry").field("rpc", &self.0.rpc).field("id", &self.0.id).finish_non_exhaustive()
    }
}
