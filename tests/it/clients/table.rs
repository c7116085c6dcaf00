//! Parts as real clients send them, and what is recorded of each. The table in docs/reference/forms.md says the same in words.

/// What becomes of an upload.
pub enum Outcome {
    /// It is stored, under this name.
    Recorded(&'static str),
    /// It is refused with a text that has this in it.
    Refused(&'static str),
}

use Outcome::{Recorded, Refused};

/// A request of one client.
pub struct Sent {
    pub client: &'static str,
    /// The name of the file on the client's machine.
    pub named: &'static str,
    /// The boundary.
    pub boundary: &'static str,
    /// Whether the client puts the boundary into quotes.
    pub quoted: bool,
    /// The header lines of the part.
    pub lines: &'static [&'static str],
    /// What follows the two dashes of the closing delimiter.
    pub end: &'static str,
    pub outcome: Outcome,
}

impl Sent {
    /// The value of the Content-Type header.
    pub fn content_type(&self) -> String {
        let quote = if self.quoted { "\"" } else { "" };
        format!("multipart/form-data; boundary={quote}{}{quote}", self.boundary)
    }

    /// The body of the request, with this content.
    pub fn body(&self, content: &[u8]) -> Vec<u8> {
        let Sent { boundary, lines, end, .. } = self;
        let head = format!("--{boundary}\r\n{}\r\n\r\n", lines.join("\r\n"));
        let tail = format!("\r\n--{boundary}--{end}");
        [head.as_bytes(), content, tail.as_bytes()].concat()
    }
}

const fn sent(
    client: &'static str,
    named: &'static str,
    boundary: &'static str,
    lines: &'static [&'static str],
    outcome: Outcome,
) -> Sent {
    Sent { client, named, boundary, quoted: false, lines, end: "\r\n", outcome }
}

const CHROME: &str = "----WebKitFormBoundaryq3Vw8TzL0dYcJ5mK";
const FIREFOX: &str = "----geckoformboundary5d2c0e61f7a94b83";
const NODE: &str = "--------------------------204917356048812653390147";
const CURL: &str = "------------------------Zr8kQw1MvXe3TgYb6NhUaL";
const HEX: &str = "8f14e45fceea167a5a36dedd4bea2543";
const NET: &str = "1b4e28ba-2fa1-11d2-883f-0016d3cca427";
const SPRING: &str = "pNfG-0Z1bdS6Yx_WkQvRj8eTmLhAc3";
const GO: &str = "7d5e2c9a01b34f86e7d5e2c9a01b34f86e7d5e2c9a01b34f86e7d5e2c9a0";
const RUBY: &str = "------------RubyMultipartPost-4c0b3a1f9e8d7265";
const DART: &str = "dart-http-boundary-+A_b.C-dE.f+G-h_IjK01234567890123456789012345678900";

/// The table.
pub const SENT: &[Sent] = &[
    sent(
        "Chrome",
        "say \"hi\" – naïve.pdf",
        CHROME,
        &[
            "Content-Disposition: form-data; name=\"file\"; filename=\"say %22hi%22 – naïve.pdf\"",
            "Content-Type: application/pdf",
        ],
        Recorded("say \"hi\" – naïve.pdf"),
    ),
    sent(
        "Chrome, a backslash at the end",
        "trailing\\",
        CHROME,
        &[
            "Content-Disposition: form-data; name=\"file\"; filename=\"trailing\\\"",
            "Content-Type: application/octet-stream",
        ],
        Recorded("trailing"),
    ),
    sent(
        "Firefox, a line break",
        "two\r\nlines.txt",
        FIREFOX,
        &["Content-Disposition: form-data; name=\"file\"; filename=\"two%0D%0Alines.txt\"", "Content-Type: text/plain"],
        Recorded("two%0D%0Alines.txt"),
    ),
    sent(
        "Safari",
        "日本 📎.png",
        CHROME,
        &["Content-Disposition: form-data; name=\"file\"; filename=\"日本 📎.png\"", "Content-Type: image/png"],
        Recorded("日本 📎.png"),
    ),
    Sent {
        client: "fetch of Node.js before 22 (undici), without a line end",
        named: "a \"b\".txt",
        boundary: "----formdata-undici-061529384710",
        quoted: false,
        lines: &[
            "Content-Disposition: form-data; name=\"file\"; filename=\"a %22b%22.txt\"",
            "Content-Type: text/plain",
        ],
        end: "",
        outcome: Recorded("a \"b\".txt"),
    },
    sent(
        "axios on Node.js",
        "50% \"off\".txt",
        "axios-1.7.9-boundary-Xk2pQ7_mVd-R4sWcZ0tYbLh9u",
        &["Content-Disposition: form-data; name=\"file\"; filename=\"50% %22off%22.txt\"", "Content-Type: text/plain"],
        Recorded("50% \"off\".txt"),
    ),
    sent(
        "form-data for Node.js",
        "résumé.pdf",
        NODE,
        &["Content-Disposition: form-data; name=\"file\"; filename=\"résumé.pdf\"", "Content-Type: application/pdf"],
        Recorded("résumé.pdf"),
    ),
    sent(
        "form-data for Node.js, quotes",
        "a \"b\" c.pdf",
        NODE,
        &["Content-Disposition: form-data; name=\"file\"; filename=\"a \"b\" c.pdf\"", "Content-Type: application/pdf"],
        Refused("filename: must be one quoted text; write a quote within it as %22"),
    ),
    sent(
        "requests for Python",
        "naïve \"plan\".pdf",
        HEX,
        &["Content-Disposition: form-data; name=\"file\"; filename=\"naïve %22plan%22.pdf\""],
        Recorded("naïve \"plan\".pdf"),
    ),
    sent(
        "urllib3 1.24 for Python",
        "naïve.pdf",
        HEX,
        &["Content-Disposition: form-data; name=\"file\"; filename*=utf-8''na%C3%AFve.pdf"],
        Recorded("naïve.pdf"),
    ),
    sent(
        "aiohttp 3.7 for Python",
        "naïve plan.pdf",
        HEX,
        &[
            "Content-Type: application/pdf",
            "Content-Disposition: form-data; name=\"file\"; filename=\"na%C3%AFve%20plan.pdf\"; filename*=utf-8''na%C3%AFve%20plan.pdf",
        ],
        Recorded("naïve plan.pdf"),
    ),
    sent(
        "aiohttp for Python, which encodes all",
        "naïve plan.pdf",
        HEX,
        &[
            "Content-Type: application/pdf",
            "Content-Disposition: form-data; name=\"file\"; filename=\"na%C3%AFve%20plan.pdf\"",
        ],
        Recorded("na%C3%AFve%20plan.pdf"),
    ),
    sent(
        "httpx for Python",
        "say \"hi\".pdf",
        HEX,
        &[
            "Content-Disposition: form-data; name=\"file\"; filename=\"say %22hi%22.pdf\"",
            "Content-Type: application/pdf",
        ],
        Recorded("say \"hi\".pdf"),
    ),
    sent(
        "email.message for Python, a name in pieces",
        "日本語.txt",
        "===============7330845974216740156==",
        &[
            "Content-Type: text/plain",
            "MIME-Version: 1.0",
            "Content-Disposition: form-data; name=\"file\"; filename*0*=utf-8''%E6%97%A5%E6%9C; filename*1*=%AC%E8%AA%9E.txt",
        ],
        Recorded("日本語.txt"),
    ),
    sent(
        "curl",
        "say \"hi\".pdf",
        CURL,
        &[
            "Content-Disposition: form-data; name=\"file\"; filename=\"say %22hi%22.pdf\"",
            "Content-Type: application/pdf",
        ],
        Recorded("say \"hi\".pdf"),
    ),
    sent(
        "curl before 7.81",
        "say \"hi\".pdf",
        CURL,
        &[
            "Content-Disposition: form-data; name=\"file\"; filename=\"say \\\"hi\\\".pdf\"",
            "Content-Type: application/pdf",
        ],
        Recorded("say \"hi\".pdf"),
    ),
    Sent {
        client: "MultipartFormDataContent of .NET",
        named: "report.pdf",
        boundary: NET,
        quoted: true,
        lines: &["Content-Disposition: form-data; name=file; filename=report.pdf; filename*=utf-8''report.pdf"],
        end: "\r\n",
        outcome: Recorded("report.pdf"),
    },
    Sent {
        client: "MultipartFormDataContent of .NET, other letters",
        named: "日本.pdf",
        boundary: NET,
        quoted: true,
        lines: &[
            "Content-Type: application/pdf",
            "Content-Disposition: form-data; name=file; filename=\"=?utf-8?B?5pel5pysLnBkZg==?=\"; filename*=utf-8''%E6%97%A5%E6%9C%AC.pdf",
        ],
        end: "\r\n",
        outcome: Recorded("日本.pdf"),
    },
    sent(
        "RestTemplate of Spring",
        "déjà vu.pdf",
        SPRING,
        &[
            "Content-Disposition: form-data; name=\"file\"; filename=\"=?UTF-8?Q?d=C3=A9j=C3=A0_vu.pdf?=\"; filename*=UTF-8''d%C3%A9j%C3%A0%20vu.pdf",
            "Content-Type: application/pdf",
            "Content-Length: 7",
        ],
        Recorded("déjà vu.pdf"),
    ),
    sent(
        "OkHttp",
        "say \"hi\".pdf",
        "3f0c8a4e-57d1-4b62-9e0a-c8d7b6a5f413",
        &[
            "Content-Disposition: form-data; name=\"file\"; filename=\"say %22hi%22.pdf\"",
            "Content-Type: application/pdf",
            "Content-Length: 7",
        ],
        Recorded("say \"hi\".pdf"),
    ),
    sent(
        "HttpClient 4 of Apache",
        "naïve.pdf",
        "gJ8hT2kLw0Rz_QmVbX4-NcYd7sPe",
        &[
            "Content-Disposition: form-data; name=\"file\"; filename=\"naïve.pdf\"",
            "Content-Type: application/pdf",
            "Content-Transfer-Encoding: binary",
        ],
        Recorded("naïve.pdf"),
    ),
    sent(
        "HttpClient 5 of Apache, extended, quoted though it may not be",
        "naïve.pdf",
        "httpclient_boundary_5e1f7c2a-9d40-4c1b",
        &[
            "Content-Disposition: form-data; name=\"file\"; filename*=\"UTF-8''na%C3%AFve.pdf\"",
            "Content-Type: application/pdf",
        ],
        Recorded("naïve.pdf"),
    ),
    sent(
        "mime/multipart of Go",
        "say \"hi\".pdf",
        GO,
        &[
            "Content-Disposition: form-data; name=\"file\"; filename=\"say \\\"hi\\\".pdf\"",
            "Content-Type: application/octet-stream",
        ],
        Recorded("say \"hi\".pdf"),
    ),
    sent(
        "reqwest for Rust, other letters",
        "日本.txt",
        "c1f0a5e7b3d94862-0b7d3f6a9c1e5248-5a7c9e1b3d5f7081-92b4d6f80a1c3e5d",
        &[
            "Content-Disposition: form-data; name=\"file\"; filename*=utf-8''%E6%97%A5%E6%9C%AC.txt",
            "Content-Type: text/plain",
        ],
        Recorded("日本.txt"),
    ),
    Sent {
        client: "multipart-post for Ruby (Faraday)",
        named: "report.pdf",
        boundary: RUBY,
        quoted: false,
        lines: &[
            "Content-Disposition: form-data; name=\"file\"; filename=\"report.pdf\"",
            "Content-Length: 7",
            "Content-Type: application/pdf",
            "Content-Transfer-Encoding: binary",
        ],
        end: "\r\n\r\n",
        outcome: Recorded("report.pdf"),
    },
    sent(
        "multipart-post for Ruby (Faraday), quotes",
        "\"quoted\".pdf",
        RUBY,
        &[
            "Content-Disposition: form-data; name=\"file\"; filename=\"\"quoted\".pdf\"",
            "Content-Length: 7",
            "Content-Type: application/pdf",
            "Content-Transfer-Encoding: binary",
        ],
        Refused("filename: must be one quoted text; write a quote within it as %22"),
    ),
    sent(
        "rest-client for Ruby",
        "notes.txt",
        "----RubyFormBoundaryeJ4kWq0ZsT7uYbLm",
        &["Content-Disposition: form-data; name=\"file\"; filename=\"notes.txt\"", "Content-Type: text/plain"],
        Recorded("notes.txt"),
    ),
    sent(
        "Guzzle for PHP",
        "résumé.pdf",
        "b2a1f3e4d5c697887960a5b4c3d2e1f0a9b8c7d6",
        &[
            "Content-Disposition: form-data; name=\"file\"; filename=\"résumé.pdf\"",
            "Content-Length: 7",
            "Content-Type: application/pdf",
        ],
        Recorded("résumé.pdf"),
    ),
    sent(
        "Guzzle for PHP, quotes",
        "a\";b.pdf",
        "b2a1f3e4d5c697887960a5b4c3d2e1f0a9b8c7d6",
        &["Content-Disposition: form-data; name=\"file\"; filename=\"a\";b.pdf\"", "Content-Length: 7"],
        Refused("filename: must be one quoted text; write a quote within it as %22"),
    ),
    sent(
        "Postman, quotes",
        "a \"b\" c.pdf",
        NODE,
        &["Content-Disposition: form-data; name=\"file\"; filename=\"a \"b\" c.pdf\"", "Content-Type: application/pdf"],
        Refused("filename: must be one quoted text; write a quote within it as %22"),
    ),
    Sent {
        client: "http for Dart, the longest boundary",
        named: "say \"hi\".pdf",
        boundary: DART,
        quoted: false,
        lines: &[
            "content-type: application/octet-stream",
            "content-disposition: form-data; name=\"file\"; filename=\"say %22hi%22.pdf\"",
        ],
        end: "\r\n",
        outcome: Recorded("say \"hi\".pdf"),
    },
    sent(
        "Alamofire for Swift",
        "photo 1.heic",
        "alamofire.boundary.6c3b0f2a91d7e845",
        &["Content-Disposition: form-data; name=\"file\"; filename=\"photo 1.heic\"", "Content-Type: image/heic"],
        Recorded("photo 1.heic"),
    ),
    sent(
        "a browser of Windows that sends the path",
        "C:\\Users\\me\\plan.doc",
        CHROME,
        &[
            "Content-Disposition: form-data; name=\"file\"; filename=\"C:\\Users\\me\\plan.doc\"",
            "Content-Type: application/msword",
        ],
        Recorded("plan.doc"),
    ),
];
