//! An identity provider: a small HTTP server that answers as it is told, and the keys with which it signs.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use serde_json::{Value, json};

use super::claims;

/// What a provider answers to one path.
#[derive(Clone)]
pub enum Answer {
    /// A status, headers as lines, and a body.
    Reply(u16, String, Vec<u8>),
    /// The same, after a while.
    Late(Duration, Vec<u8>),
    /// A head, and then a byte now and then for ever.
    Drip,
    /// Nothing: the connection is closed.
    Cut,
}

impl Answer {
    /// JSON, and all is well.
    pub fn json(value: &Value) -> Answer {
        Answer::Reply(200, "Content-Type: application/json\r\n".to_owned(), value.to_string().into_bytes())
    }

    /// Another address.
    pub fn redirect(to: &str) -> Answer {
        Answer::Reply(302, format!("Location: {to}\r\n"), Vec::new())
    }
}

/// A running provider.
pub struct Provider {
    /// Where it listens.
    pub address: SocketAddr,
    scheme: &'static str,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    answers: BTreeMap<String, Answer>,
    /// The heads of the requests that came.
    requests: Vec<String>,
}

impl Provider {
    /// Starts one that speaks plain HTTP.
    pub fn start() -> Provider {
        Provider::listen("http", serve)
    }

    /// Starts one that speaks TLS.
    pub fn start_tls(config: ServerConfig) -> Provider {
        let config = Arc::new(config);
        Provider::listen("https", move |stream, state| {
            let connection = ServerConnection::new(Arc::clone(&config)).expect("a configuration that works");
            serve(StreamOwned::new(connection, stream), state);
        })
    }

    fn listen(scheme: &'static str, speak: impl Fn(TcpStream, &Mutex<State>) + Send + Sync + 'static) -> Provider {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("an address");
        let state = Arc::new(Mutex::new(State::default()));
        let (shared, speak) = (Arc::clone(&state), Arc::new(speak));
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (state, speak) = (Arc::clone(&shared), Arc::clone(&speak));
                std::thread::spawn(move || speak(stream, &state));
            }
        });
        Provider { address, scheme, state }
    }

    /// Its address, as an issuer's name.
    pub fn url(&self) -> String {
        let host = if self.scheme == "https" { "localhost".to_owned() } else { self.address.ip().to_string() };
        format!("{}://{host}:{}", self.scheme, self.address.port())
    }

    /// Answers a path from now on.
    pub fn answer(&self, path: &str, answer: Answer) {
        self.state.lock().unwrap().answers.insert(path.to_owned(), answer);
    }

    /// Publishes keys at `/jwks`, and itself as an issuer.
    pub fn publish(&self, keys: &[&SigningKey]) {
        let keys: Vec<_> = keys.iter().map(|key| key.jwk.clone()).collect();
        self.answer("/jwks", Answer::json(&json!({ "keys": keys })));
        let description = json!({"issuer": self.url(), "jwks_uri": format!("{}/jwks", self.url())});
        self.answer("/.well-known/openid-configuration", Answer::json(&description));
    }

    /// The heads of the requests for a path.
    pub fn requests(&self, path: &str) -> Vec<String> {
        let begins = format!("GET {path} ");
        self.state.lock().unwrap().requests.iter().filter(|head| head.starts_with(&begins)).cloned().collect()
    }

    /// The `[auth]` section of a server that trusts it, with more lines for the issuer.
    pub fn auth(&self, keys: &str, rest: &str) -> String {
        let url = self.url();
        format!(
            "[auth.keys]\n{keys}\n[[auth.issuers]]\nissuer = \"{url}\"\naudience = [\"attachd\"]\nalgorithms = [\"ES256\"]\n{rest}\n"
        )
    }

    /// A token for client 1.
    pub fn token(&self, key: &SigningKey) -> String {
        let mut claims = claims(&[1]);
        claims["iss"] = self.url().into();
        key.sign(&claims)
    }
}

fn serve(mut stream: impl Read + Write, state: &Mutex<State>) {
    let mut head = String::new();
    let mut lines = BufReader::new(&mut stream);
    while !head.ends_with("\r\n\r\n") {
        if lines.read_line(&mut head).unwrap_or(0) == 0 {
            return;
        }
    }
    let path = head.split(' ').nth(1).unwrap_or_default().to_owned();
    let answer = {
        let mut state = state.lock().unwrap();
        state.requests.push(head);
        state.answers.get(&path).cloned()
    };
    // Whoever asked may have gone away.
    let _ = match answer.unwrap_or(Answer::Reply(404, String::new(), Vec::new())) {
        Answer::Reply(status, headers, body) => reply(&mut stream, status, &headers, &body),
        Answer::Late(delay, body) => {
            std::thread::sleep(delay);
            reply(&mut stream, 200, "", &body)
        }
        Answer::Cut => Ok(()),
        Answer::Drip => drip(&mut stream),
    };
}

fn reply(stream: &mut impl Write, status: u16, headers: &str, body: &[u8]) -> std::io::Result<()> {
    let length = body.len();
    write!(stream, "HTTP/1.1 {status} X\r\nContent-Length: {length}\r\nConnection: close\r\n{headers}\r\n")?;
    stream.write_all(body)?;
    stream.flush()
}

fn drip(stream: &mut impl Write) -> std::io::Result<()> {
    write!(stream, "HTTP/1.1 200 X\r\nContent-Length: 100000\r\n\r\n")?;
    loop {
        stream.write_all(b" ")?;
        stream.flush()?;
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// A key pair of a provider, P-256.
pub struct SigningKey {
    kid: Option<&'static str>,
    private: EncodingKey,
    /// The public key as a member of a set.
    pub jwk: Value,
}

impl SigningKey {
    /// A fresh key of this name.
    pub fn new(kid: &'static str) -> SigningKey {
        let private = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &SystemRandom::new());
        let private = private.expect("random numbers");
        let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, private.as_ref()).expect("a key");
        let (x, y) = pair.public_key().as_ref()[1..].split_at(32);
        let [x, y] = [x, y].map(|half| URL_SAFE_NO_PAD.encode(half));
        let jwk = json!({"kty": "EC", "crv": "P-256", "x": x, "y": y, "kid": kid, "use": "sig", "alg": "ES256"});
        SigningKey { kid: Some(kid), private: EncodingKey::from_ec_der(private.as_ref()), jwk }
    }

    /// The same key, whose name neither the set nor its tokens say.
    #[must_use]
    pub fn nameless(mut self) -> SigningKey {
        self.kid = None;
        self.jwk.as_object_mut().expect("an object").remove("kid");
        self
    }

    /// Signs claims.
    pub fn sign(&self, claims: &Value) -> String {
        self.sign_with(&Header { kid: self.kid.map(str::to_owned), ..Header::new(Algorithm::ES256) }, claims)
    }

    /// Signs claims, and says of the key what `header` says.
    pub fn sign_with(&self, header: &Header, claims: &Value) -> String {
        encode(header, claims, &self.private).expect("claims can be signed")
    }
}
