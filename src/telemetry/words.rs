//! The words that the log, the metrics and the traces have in common.

/// The target of the spans that are traces. Nothing else is sent, and nothing of it is in the log.
pub const SPANS: &str = "attachd::span";

/// Makes an enumeration whose variants are the values of a label.
macro_rules! label {
    ($(#[$doc:meta])* $name:ident { $($(#[$why:meta])* $variant:ident = $word:literal,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
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
    /// Which port a request came through.
    Door {
        /// The REST port.
        Rest = "rest",
        /// The gRPC port.
        Grpc = "grpc",
    }
}

label! {
    /// What a request asked for.
    Method {
        /// An upload.
        Upload = "UploadAttachment",
        /// A registration.
        Register = "RegisterAttachment",
        /// The health of the service.
        Health = "Health",
        /// The descriptors of the service.
        Reflection = "ServerReflection",
        /// What there is not.
        Other = "other",
    }
}

impl Door {
    /// What can be asked for through it.
    pub fn methods(self) -> impl Iterator<Item = Method> {
        let never = |method| matches!(method, Method::Register | Method::Health | Method::Reflection);
        Method::ALL.into_iter().filter(move |method| self == Door::Grpc || !never(*method))
    }
}
