//! How the targets read what libFuzzer gives them. A target that needs more than bytes takes it from the first of them, so that
//! a file of a corpus is mostly what it looks like.

/// Pieces of a body. A digit says how many sizes follow, each of one character: `@` is one byte, `A` two, `B` three. The pieces
/// of the rest have these sizes in turn. Without a size all of it is one piece.
pub fn pieces(input: &[u8]) -> Vec<&[u8]> {
    let Some((count, rest)) = input.split_first() else { return Vec::new() };
    let (sizes, mut body) = rest.split_at(rest.len().min((count % 8).into()));
    if sizes.is_empty() {
        return vec![body];
    }
    let mut pieces = Vec::new();
    for size in sizes.iter().map(|size| usize::from(size % 64) + 1).cycle() {
        if body.is_empty() {
            break;
        }
        let (piece, after) = body.split_at(body.len().min(size));
        pieces.push(piece);
        body = after;
    }
    pieces
}

/// Two texts, with a line feed between them.
pub fn two(input: &[u8]) -> Option<(&str, &str)> {
    std::str::from_utf8(input).ok()?.split_once('\n')
}
