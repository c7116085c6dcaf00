//! One behaviour behind two doors: every request of one table, asked over REST and over gRPC, in every state in which the
//! attachment may be, has the same outcome and leaves the same behind.

use std::fs;
use std::path::PathBuf;

use attachd::pb::attachment_service_client::AttachmentServiceClient;
use attachd::pb::upload_attachment_request::Message;
use attachd::pb::{Attachment, RegisterAttachmentRequest, UploadAttachmentRequest, UploadHeader};
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::{Value, json};
use tonic::transport::Channel;
use tonic::{Code, Request};

use crate::harness::{
    Connection, Form, GrpcRefusal, Reply, Server, Setup, authorised, chunk, claims, eventually, finish, header, hex,
    mint, noise, request_id, sha256, token,
};

mod table;

use table::{By, CASES, LIMIT, Outcome};

/// The client, project and portfolio of all attachments but where a case says otherwise.
const PROJECT: i64 = 5;
const PORTFOLIO: i64 = 6;

/// What was there before the request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum World {
    /// Nothing, on a server that lets uploads make attachments known.
    Fresh,
    /// Nothing, on a server that knows registered attachments only.
    Stranger,
    /// A registered attachment.
    Registered,
    /// A registered attachment with content.
    Filled,
}

/// What is wrong with the storage.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Storage {
    Fine,
    /// A file in place of the client's folder, which no trying again will mend.
    File,
    /// A link in its place, to a folder that looks the same.
    Link,
    /// All of it is gone, as where a volume is not mounted, and may come back.
    Gone,
}

/// A request, in the words of neither door.
struct Ask {
    claims: Value,
    token: Option<String>,
    client: i64,
    attachment: i64,
    project: Option<i64>,
    portfolio: Option<i64>,
    filename: Option<String>,
    content_type: Option<String>,
    sha256: Option<Vec<u8>>,
    if_absent: bool,
    if_match: Option<String>,
    if_none_match: Option<String>,
    bytes: Vec<u8>,
    /// Whether the request is sent to its end.
    whole: bool,
    storage: Storage,
}

impl Ask {
    fn plain(client: i64) -> Ask {
        Ask {
            claims: claims(&[client]),
            token: Some(token(&[client])),
            client,
            attachment: 1,
            project: None,
            portfolio: None,
            filename: Some("a.bin".to_owned()),
            content_type: None,
            sha256: None,
            if_absent: false,
            if_match: None,
            if_none_match: None,
            bytes: noise(1000, 2),
            whole: true,
            storage: Storage::Fine,
        }
    }

    fn claim(&mut self, name: &str, value: Value) {
        self.claims[name] = value;
        self.token = Some(mint(&self.claims));
    }

    fn over_rest(&self, connection: &mut Connection, id: &str) -> Reply {
        let mut query = String::new();
        for (name, value) in [("project_id", self.project), ("portfolio_id", self.portfolio)] {
            if let Some(value) = value {
                query.push_str(&format!("&{name}={value}"));
            }
        }
        let path = format!("/api/v2/clients/{}/attachments/{}?{query}", self.client, self.attachment);
        let mut part = "Content-Disposition: form-data; name=\"file\"".to_owned();
        if let Some(filename) = &self.filename {
            // As browsers write it.
            part.push_str(&format!("; filename=\"{}\"", filename.replace('"', "%22")));
        }
        if let Some(content_type) = &self.content_type {
            part.push_str(&format!("\r\nContent-Type: {content_type}"));
        }
        let form = Form::default().part(&part, &self.bytes);
        let mut body = form.bytes();
        if !self.whole {
            body.truncate(body.len() - "--\r\n".len());
        }
        let content_type = form.content_type();
        let mut headers = vec![("Content-Type", content_type.as_str()), ("X-Request-Id", id)];
        let authorization = self.token.as_ref().map(|token| format!("Bearer {token}"));
        headers.extend(authorization.as_deref().map(|value| ("Authorization", value)));
        let digest = self.sha256.as_ref().map(|digest| format!("sha-256=:{}:", BASE64.encode(digest)));
        headers.extend(digest.as_deref().map(|value| ("Repr-Digest", value)));
        headers.extend(self.if_absent.then_some(("If-None-Match", "*")));
        headers.extend(self.if_match.as_deref().map(|value| ("If-Match", value)));
        headers.extend(self.if_none_match.as_deref().map(|value| ("If-None-Match", value)));
        connection.request("POST", &path, &headers, &body)
    }

    async fn over_grpc(
        &self,
        client: &mut AttachmentServiceClient<Channel>,
        id: &str,
    ) -> Result<(Attachment, Option<String>), GrpcRefusal> {
        let header = UploadHeader {
            project_id: self.project,
            portfolio_id: self.portfolio,
            filename: self.filename.clone().unwrap_or_default(),
            content_type: self.content_type.clone().unwrap_or_default(),
            sha256: self.sha256.clone().map(Into::into),
            if_absent: self.if_absent,
            if_match: self.if_match.clone(),
            if_none_match: self.if_none_match.clone(),
            ..header(self.client, self.attachment)
        };
        let mut messages = vec![Message::Header(header)];
        messages.extend(self.bytes.chunks(300_000).map(|bytes| chunk(bytes.to_vec())));
        messages.extend(self.whole.then(finish));
        let messages = messages.into_iter().map(|message| UploadAttachmentRequest { message: Some(message) });
        let mut request = Request::new(futures_util::stream::iter(messages));
        request.metadata_mut().insert("x-request-id", id.parse().expect("an id is ASCII"));
        let request = authorised(request, self.token.as_deref().unwrap_or_default());
        let reply = client.upload_attachment(request).await?;
        let echoed = request_id(reply.metadata());
        Ok((reply.into_inner().attachment.expect("a reply names the attachment"), echoed))
    }
}

/// A server and one connection to each of its doors, over which all is asked.
struct Doors {
    rest: Connection,
    grpc: AttachmentServiceClient<Channel>,
    world: World,
    /// Last, so that the connections are closed when it ends.
    server: Server,
}

/// What the storage holds of an attachment.
#[derive(Debug, PartialEq)]
struct Held {
    record: Option<Value>,
    bytes: Option<Vec<u8>>,
}

impl Doors {
    async fn open(world: World) -> Doors {
        let on_unknown = if world == World::Fresh { "create" } else { "reject" };
        let limits = format!("max_upload_size = {LIMIT}\n");
        let server = Setup { on_unknown, limits, ..Setup::default() }.start();
        let (rest, grpc) = (server.connect(), server.channel().await);
        let doors = Doors { rest, grpc, world, server };
        doors.register(1, None, None).await;
        doors
    }

    async fn register(&self, client: i64, project: Option<i64>, portfolio: Option<i64>) {
        let request = RegisterAttachmentRequest {
            client_id: client,
            attachment_id: 1,
            project_id: project,
            portfolio_id: portfolio,
        };
        self.server.grpc_register(&token(&[client]), request).await.expect("an attachment can be registered");
    }

    /// Makes the world of a case for one client, and says what it holds.
    async fn prepare(&mut self, client: i64) -> Held {
        if matches!(self.world, World::Registered | World::Filled) {
            self.register(client, Some(PROJECT), Some(PORTFOLIO)).await;
        }
        if self.world == World::Filled {
            let old = Ask { bytes: old(), filename: Some("old.txt".to_owned()), ..Ask::plain(client) };
            old.over_grpc(&mut self.grpc, "prepare").await.expect("an attachment can be filled");
        }
        self.held(client)
    }

    fn held(&self, client: i64) -> Held {
        Held { record: self.server.record(client, 1), bytes: self.server.stored(client, 1) }
    }

    /// Damages the storage of a client, or of all.
    fn damage(&self, client: i64, storage: Storage) {
        let (root, away) = self.roots();
        let (folder, aside) = self.folders(client);
        match storage {
            Storage::Fine => return,
            // The other client's damage may have been the same.
            Storage::Gone if !root.exists() => return,
            Storage::Gone => {
                // What the request before has replaced is still being deleted, and could not be.
                eventually("nothing is going on", || self.server.readiness()["uploads_in_flight"] == 0);
                return fs::rename(root, away).expect("a root can be moved");
            }
            Storage::File | Storage::Link => {}
        }
        fs::create_dir_all(folder.parent().expect("it has a parent")).expect("a folder can be made");
        if folder.exists() {
            fs::rename(&folder, &aside).expect("a folder can be moved");
        }
        match storage {
            Storage::File => fs::write(&folder, "a file").expect("a file can be written"),
            _ => std::os::unix::fs::symlink(&aside, &folder).expect("a link can be made"),
        }
    }

    /// Takes the damage back.
    fn mend(&self, client: i64, storage: Storage) {
        let (root, away) = self.roots();
        let (folder, aside) = self.folders(client);
        match storage {
            Storage::Fine => {}
            Storage::Gone if root.exists() => {}
            Storage::Gone => fs::rename(away, root).expect("a root can be moved"),
            Storage::File | Storage::Link => fs::remove_file(&folder).expect("it is still there"),
        }
        if aside.exists() {
            fs::rename(aside, folder).expect("a folder can be moved");
        }
    }

    fn roots(&self) -> (PathBuf, PathBuf) {
        (self.server.root(), self.server.folder().join("root-away"))
    }

    fn folders(&self, client: i64) -> (PathBuf, PathBuf) {
        (self.server.root().join(format!("clients/{client}")), self.server.root().join(format!("aside-{client}")))
    }

    /// Both connections serve the next request.
    async fn served(&mut self, name: &str) {
        let next = Ask { bytes: noise(10, 3), ..Ask::plain(1) };
        assert_eq!(next.over_rest(&mut self.rest, "next").status, 201, "the request after {name}");
        next.over_grpc(&mut self.grpc, "next").await.expect("the call after it");
        assert_eq!(self.server.stored(1, 1).expect("it is stored"), next.bytes);
    }
}

/// The content of a filled attachment.
fn old() -> Vec<u8> {
    noise(70_000, 1)
}

/// A record without what differs from one upload to the next.
fn comparable(mut record: Value) -> Value {
    let fields = record.as_object_mut().expect("a record is an object");
    for name in ["client_id", "registered_at"] {
        fields.remove(name);
    }
    if let Some(content) = record.get_mut("content").and_then(Value::as_object_mut) {
        for name in ["created_at", "upload_id"] {
            content.remove(name);
        }
    }
    record
}

/// That what is stored is what was asked for.
fn assert_stored(name: &str, world: World, ask: &Ask, held: &Held) {
    assert!(held.bytes.as_ref() == Some(&ask.bytes), "{name}: other bytes than were sent");
    let record = held.record.as_ref().expect("a stored attachment has a record");
    let registered = matches!(world, World::Registered | World::Filled);
    let content = json!({
        "size": ask.bytes.len(), "sha256": hex(&sha256(&ask.bytes)), "uploaded_by": "tester",
        "filename": ask.filename.clone().unwrap_or_default(),
        "content_type": ask.content_type.as_deref().unwrap_or("application/octet-stream"),
    });
    let expected = json!({
        "state": "stored",
        "project_id": if registered { Some(PROJECT) } else { ask.project },
        "portfolio_id": if registered { Some(PORTFOLIO) } else { ask.portfolio },
    });
    for (part, expected) in [(record, expected), (&record["content"], content)] {
        for (field, value) in expected.as_object().expect("an object") {
            assert_eq!(&part[field], value, "{name}: {field}");
        }
    }
}

async fn agree(world: World) {
    let mut doors = Doors::open(world).await;
    for (number, case) in CASES.iter().enumerate() {
        let name = format!("{} ({world:?})", case.name);
        let expected: Outcome = case.expected(world);
        let first = 100 + 2 * i64::try_from(number).expect("a small number");
        let [mut rest, mut grpc] = [Ask::plain(first), Ask::plain(first + 1)];
        let before = [doors.prepare(first).await, doors.prepare(first + 1).await];
        (case.change)(&mut rest);
        (case.change)(&mut grpc);

        doors.damage(first, rest.storage);
        doors.damage(first + 1, grpc.storage);
        let ids = [format!("rest-{number}"), format!("grpc-{number}")];
        let reply = rest.over_rest(&mut doors.rest, &ids[0]);
        // What is refused with much still to come ends its connection.
        if reply.header("connection") == "close" {
            doors.rest = doors.server.connect();
        }
        let called = grpc.over_grpc(&mut doors.grpc, &ids[1]).await;
        doors.mend(first, rest.storage);
        doors.mend(first + 1, grpc.storage);

        assert_eq!(reply.status, expected.status, "{name}: {reply:?}");
        assert_eq!(reply.headers["x-request-id"], ids[0], "{name}");
        let (code, reason) = match &called {
            Ok(_) => (Code::Ok, "OK"),
            Err(refusal) => (refusal.code, refusal.reason.as_str()),
        };
        assert_eq!((code, reason), (expected.code, expected.reason), "{name}: {called:?}");
        for id in &ids {
            assert_eq!(doors.server.outcome(id), expected.reason, "{name}: the log of {id}");
        }

        let after = [doors.held(first), doors.held(first + 1)];
        match called {
            Ok((attachment, echoed)) => {
                assert_eq!(echoed.as_ref(), Some(&ids[1]), "{name}");
                assert_stored(&name, world, &rest, &after[0]);
                assert_stored(&name, world, &grpc, &after[1]);
                let digest = attachment.sha256.expect("a stored attachment has a digest");
                assert_eq!(reply.headers["etag"], format!("\"{}\"", hex(&digest)), "{name}");
                let [rest, grpc] = after.map(|held| comparable(held.record.expect("a record")));
                assert_eq!(rest, grpc, "{name}");
            }
            Err(refusal) => {
                assert_eq!(refusal.request_id.as_ref(), Some(&ids[1]), "{name}");
                assert!(after == before, "{name}: a refusal changed what was there: {after:?}");
                if !matches!(case.by, By::Ids | By::Content) {
                    assert_eq!(reply.details(), refusal.message, "{name}");
                }
                let named = |bytes| format!("\"{}\"", hex(&sha256(bytes)));
                let stored = before[0].bytes.as_deref().filter(|_| reply.status == 412).map(named);
                assert_eq!(reply.headers.get("etag"), stored.as_ref(), "{name}");
                assert_eq!(refusal.metadata.get("etag"), stored.as_ref(), "{name}");
                let retry = reply.headers.get("retry-after").map(|value| value.parse::<u64>().expect("seconds"));
                assert_eq!(retry, refusal.retry_after.map(|delay| delay.as_secs()), "{name}");
                assert_eq!(retry.is_some(), reply.status == 503, "{name}");
                let challenge = reply.headers.get("www-authenticate");
                assert_eq!(challenge, refusal.challenge.as_ref(), "{name}");
                assert_eq!(challenge.is_some(), reply.status == 401, "{name}");
                doors.served(&name).await;
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn both_doors_agree_about_attachments_that_an_upload_makes_known() {
    agree(World::Fresh).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn both_doors_agree_about_attachments_that_were_never_registered() {
    agree(World::Stranger).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn both_doors_agree_about_registered_attachments() {
    agree(World::Registered).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn both_doors_agree_about_attachments_with_content() {
    agree(World::Filled).await;
}
