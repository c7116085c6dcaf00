//! From the samples of `perf script` to one picture: the width of a box is its share of the processor time, and what lies
//! above it is what it calls.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::BufRead;

use crate::error::Result;

/// The size of the picture and of a row, in pixels.
const WIDTH: f64 = 1100.0;
const ROW: f64 = 15.0;

/// The least share of all samples that is drawn.
const LEAST: f64 = 0.003;

/// How wide a letter is, in pixels.
const LETTER: f64 = 5.6;

/// A function, as it is reached on one way.
#[derive(Debug, Default)]
struct Frame {
    samples: u64,
    calls: BTreeMap<String, Frame>,
}

/// Reads what `perf script` wrote, and returns the picture.
pub fn draw(script: impl BufRead) -> Result<String> {
    let mut all = Frame::default();
    let mut stack = Vec::new();
    for line in script.lines() {
        let line = line?;
        let frame = line.strip_prefix(['\t', ' ']).map(str::trim);
        match frame {
            // The first line of a sample is its head and begins with the name of the thread.
            None if !line.is_empty() => stack.clear(),
            Some(frame) if !frame.is_empty() => stack.push(name(frame)),
            _ => {
                add(&mut all, &stack);
                stack.clear();
            }
        }
    }
    add(&mut all, &stack);
    if all.samples == 0 {
        return Err("there are no samples".into());
    }
    let height = (depth(&all, all.samples) + 1) as f64 * ROW;
    let mut body = String::new();
    boxes(&mut body, "all", &all, all.samples, 0.0, height - ROW);
    Ok(format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH:.0} {height:.0}\" font-family=\"monospace\" \
         font-size=\"9\">\n<rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>\n{body}</svg>\n"
    ))
}

/// Adds a sample, whose innermost function comes first.
fn add(all: &mut Frame, stack: &[String]) {
    if stack.is_empty() {
        return;
    }
    all.samples += 1;
    let mut frame = all;
    for name in stack.iter().rev() {
        frame = frame.calls.entry(name.clone()).or_default();
        frame.samples += 1;
    }
}

/// The last words of a function's path, without its address, its parameters and its library.
fn name(frame: &str) -> String {
    let symbol = frame.split_once(' ').map_or(frame, |(_, symbol)| symbol);
    let symbol = symbol.rsplit_once(" (").map_or(symbol, |(symbol, _)| symbol);
    let symbol = symbol.rsplit_once("+0x").map_or(symbol, |(symbol, _)| symbol);
    let mut plain = String::new();
    let mut depth = 0;
    for letter in symbol.chars() {
        depth += i32::from(letter == '<') - i32::from(letter == '>' && depth > 0);
        if depth == 0 && letter != '>' {
            plain.push(letter);
        }
    }
    let words: Vec<&str> =
        plain.split("::").filter(|word| !word.is_empty() && *word != "{{closure}}" && *word != "{closure#0}").collect();
    match words.as_slice() {
        [] => symbol.to_owned(),
        [.., module, function] => format!("{module}::{function}"),
        [function] => (*function).to_owned(),
    }
}

fn drawn(frame: &Frame, all: u64) -> bool {
    frame.samples as f64 >= all as f64 * LEAST
}

fn depth(frame: &Frame, all: u64) -> usize {
    let calls = frame.calls.values().filter(|call| drawn(call, all));
    calls.map(|call| depth(call, all) + 1).max().unwrap_or(0)
}

fn boxes(body: &mut String, name: &str, frame: &Frame, all: u64, x: f64, y: f64) {
    let width = WIDTH * frame.samples as f64 / all as f64;
    let escaped = |text: &str| text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
    // A colour that is the same for the same function.
    let tint = name.bytes().fold(0_u32, |tint, byte| tint.wrapping_mul(31).wrapping_add(u32::from(byte))) % 40;
    let percent = 100.0 * frame.samples as f64 / all as f64;
    let _ = write!(
        body,
        "<g><title>{}: {percent:.1} %</title><rect x=\"{x:.1}\" y=\"{y:.0}\" width=\"{width:.1}\" height=\"{:.0}\" \
         fill=\"hsl({},80%,{}%)\" stroke=\"#fff\" stroke-width=\".5\"/>",
        escaped(name),
        ROW - 1.0,
        10 + tint,
        62 + tint / 4,
    );
    let letters = (width / LETTER) as usize;
    if letters > 3 {
        let label: String = name.chars().take(letters).collect();
        let _ = write!(body, "<text x=\"{:.1}\" y=\"{:.0}\">{}</text>", x + 2.0, y + ROW - 5.0, escaped(&label));
    }
    body.push_str("</g>\n");
    let mut x = x;
    for (name, call) in &frame.calls {
        if drawn(call, all) {
            boxes(body, name, call, all, x, y - ROW);
        }
        x += WIDTH * call.samples as f64 / all as f64;
    }
}
