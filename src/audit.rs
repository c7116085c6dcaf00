//! The audit trail: one line for each upload and registration that somebody asked for, with who, what, on which attachment,
//! from where, and how it ended. The lines have a target of their own, `attachd::audit`, so that they can be kept apart from
//! the log. This module must not know how a decision is made, and never sees a token.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use crate::auth::Principal;
use crate::error::{Error, Kind};
use crate::origin::Origin;
use crate::telemetry::{Door, RequestId};

/// What somebody asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// To store the content of an attachment.
    Upload,
    /// To make an attachment known.
    Register,
}

impl Action {
    const fn as_str(self) -> &'static str {
        match self {
            Action::Upload => "upload",
            Action::Register => "register",
        }
    }
}

/// The ids that a request names, as it names them: whether they are ids at all is part of the decision.
#[derive(Clone, Copy, Debug)]
pub struct Asked {
    /// The client.
    pub client: i64,
    /// The attachment.
    pub attachment: i64,
    /// The project, if one is named.
    pub project: Option<i64>,
    /// The portfolio, if one is named.
    pub portfolio: Option<i64>,
}

/// One line of the audit trail, from the moment of the request on. Clones are the same line: it is written once, by whoever
/// learns first how the request ended, and by the last one to drop it where nobody does, because the client has gone.
#[derive(Clone)]
pub struct Entry(Arc<Line>);

struct Line {
    action: Action,
    door: Door,
    id: RequestId,
    from: Option<Origin>,
    about: Mutex<About>,
}

#[derive(Default)]
struct About {
    caller: Option<Principal>,
    asked: Option<Asked>,
    written: bool,
}

/// How a request ended.
struct End<'a> {
    /// `done`, `refused`, `failed`, or `abandoned`.
    outcome: &'static str,
    /// The stable word of the error table.
    reason: &'static str,
    why: Option<&'a str>,
}

impl Entry {
    /// Begins the line of a request.
    pub fn new(action: Action, door: Door, id: RequestId, from: Option<Origin>) -> Entry {
        Entry(Arc::new(Line { action, door, id, from, about: Mutex::default() }))
    }

    /// The request names these ids.
    pub fn asked(&self, asked: Asked) {
        self.0.about().asked = Some(asked);
    }

    /// The request comes from this caller.
    pub fn called(&self, caller: &Principal) {
        self.0.about().caller = Some(caller.clone());
    }

    /// What was asked for has happened.
    pub fn done(&self) {
        self.0.write(&End { outcome: "done", reason: "OK", why: None });
    }

    /// What was asked for has not happened.
    pub fn refused(&self, error: &Error) {
        let row = error.kind().row();
        let outcome = if row.status.is_server_error() { "failed" } else { "refused" };
        // The caller is told less of a token than we know. The cause of any other failure belongs into the log.
        let of_token = matches!(error.kind(), Kind::TokenMissing | Kind::TokenInvalid | Kind::TokenExpired);
        let why = error.log_source().filter(|_| of_token).unwrap_or_else(|| error.public_details().into_owned());
        self.0.write(&End { outcome, reason: row.reason, why: Some(&why) });
    }
}

impl Line {
    fn about(&self) -> std::sync::MutexGuard<'_, About> {
        self.about.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self, end: &End<'_>) {
        let mut about = self.about();
        if about.written {
            return;
        }
        about.written = true;
        let (caller, asked) = (about.caller.as_ref(), about.asked.as_ref());
        tracing::info!(
            target: "attachd::audit",
            request_id = %self.id,
            door = self.door.as_str(),
            action = self.action.as_str(),
            outcome = end.outcome,
            reason = end.reason,
            why = end.why,
            issuer = caller.map(Principal::issuer),
            subject = caller.map(Principal::subject),
            client_id = asked.map(|asked| asked.client),
            attachment_id = asked.map(|asked| asked.attachment),
            project_id = asked.and_then(|asked| asked.project),
            portfolio_id = asked.and_then(|asked| asked.portfolio),
            from = self.from.map(tracing::field::display),
            via = self.from.and_then(|from| from.via()).map(tracing::field::display),
            "audit"
        );
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        self.write(&End { outcome: "abandoned", reason: "CLIENT_GONE", why: None });
    }
}

impl fmt::Debug for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Entry").field("action", &self.0.action).field("id", &self.0.id).finish_non_exhaustive()
    }
}
