//! The words that the log, the metrics and the traces have in common.

use crate::operation::Rpc;

/// The target of the spans that are traces. Nothing else is sent, and nothing of it is in the log.
pub const SPANS: &str = "attachd::span";

/// Makes an enumeration whose variants are the values of a label.
macro_rules! label {
    ($(#[$doc:meta])* $name:ident { $($(#[$why:meta])* $variant:ident = $word:literal,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum $name {
            $($(#[$why])* $variant,)*
        }

        impl $name {
            /// Each there is.
            pub const ALL: [$name; [$($word),*].len()] = [$($name::$variant),*];

            /// The value of the label.
            pub const fn as_str(self) -> &'static str {
                match self {
                    $($name::$variant => $word,)*
                }
            }
        }
    };
}
pub(super) use label;

label! {
    /// The protocol that a request came over.
    Protocol {
        /// The REST port.
        Rest = "rest",
        /// The gRPC port.
        Grpc = "grpc",
    }
}

/// What a request asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// An operation.
    Rpc(Rpc),
    /// The health of the service.
    Health,
    /// The descriptors of the service.
    Reflection,
    /// What there is not.
    Other,
}

impl Method {
    /// The value of the label.
    pub const fn as_str(self) -> &'static str {
        match self {
            Method::Rpc(rpc) => rpc.row().name,
            Method::Health => "Health",
            Method::Reflection => "ServerReflection",
            Method::Other => "other",
        }
    }

    /// Whether it brings content.
    pub fn takes_content(self) -> bool {
        matches!(self, Method::Rpc(rpc) if rpc.row().takes_content)
    }

    /// Whether its reply brings content.
    pub fn gives_content(self) -> bool {
        matches!(self, Method::Rpc(rpc) if rpc.row().gives_content)
    }
}

impl Protocol {
    /// What can be asked for over it.
    pub fn methods(self) -> impl Iterator<Item = Method> {
        let is_here = move |rpc: &Rpc| self == Protocol::Grpc || rpc.row().route.is_some();
        let services = [Method::Health, Method::Reflection].into_iter().filter(move |_| self == Protocol::Grpc);
        Rpc::ALL.into_iter().filter(is_here).map(Method::Rpc).chain(services).chain([Method::Other])
    }
}
