//! Just enough of a Rust lexer to tell code from comments and strings.

/// An identifier, `::`, or a single other character.
pub struct Token {
    /// Counted from 1.
    pub line: usize,
    /// As written.
    pub text: String,
}

/// The text of the token at `at`; empty behind the last one.
pub fn text_at(tokens: &[Token], at: usize) -> &str {
    tokens.get(at).map_or("", |token| token.text.as_str())
}

/// The tokens of a source, without comments and without what stands in strings.
pub fn tokens(text: &str) -> Vec<Token> {
    let mut tokens = Vec::new();
    let mut line = 1;
    let code = code(text);
    let mut rest = code.as_str();
    while let Some(first) = rest.chars().next() {
        let word = |c: char| c.is_alphanumeric() || c == '_';
        let length = match first {
            c if word(c) => rest.find(|c| !word(c)).unwrap_or(rest.len()),
            ':' if rest.starts_with("::") => 2,
            c => c.len_utf8(),
        };
        if !first.is_whitespace() {
            let text = rest[..length].to_owned();
            tokens.push(Token { line, text });
        }
        line += usize::from(first == '\n');
        rest = &rest[length..];
    }
    tokens
}

/// The text with comments, strings and characters blanked, line for line.
fn code(text: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    let mut word_before = false;
    while let Some(first) = rest.chars().next() {
        let blank = match first {
            '/' if rest.starts_with("//") => rest.find('\n').unwrap_or(rest.len()),
            '/' if rest.starts_with("/*") => block_comment(rest),
            '"' => string(rest),
            'r' if !word_before && raw_string(rest).is_some() => raw_string(rest).unwrap(),
            '\'' => character(rest),
            _ => 0,
        };
        if blank > 0 {
            out.extend(
                rest[..blank]
                    .chars()
                    .map(|c| if c == '\n' { c } else { ' ' }),
            );
            rest = &rest[blank..];
            word_before = false;
        } else {
            out.push(first);
            rest = &rest[first.len_utf8()..];
            // `br"..."` is raw, too; `for"` cannot be written.
            word_before = (first.is_alphanumeric() || first == '_') && first != 'b';
        }
    }
    out
}

fn block_comment(text: &str) -> usize {
    let (mut open, mut at) = (0, 0);
    while at < text.len() {
        match &text.as_bytes()[at..] {
            [b'/', b'*', ..] => (open, at) = (open + 1, at + 2),
            [b'*', b'/', ..] => (open, at) = (open - 1, at + 2),
            _ => at += 1,
        }
        if open == 0 {
            return at;
        }
    }
    at
}

fn string(text: &str) -> usize {
    let mut escaped = false;
    for (at, byte) in text.bytes().enumerate().skip(1) {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'"' => return at + 1,
            _ => {}
        }
    }
    text.len()
}

/// Length of `r"..."` or `r#"..."#` at the start, where there is one.
fn raw_string(text: &str) -> Option<usize> {
    let hashes = text[1..].bytes().take_while(|byte| *byte == b'#').count();
    let inside = text.get(1 + hashes..)?.strip_prefix('"')?;
    let end = inside.find(&format!("\"{}", "#".repeat(hashes)))?;
    Some(2 + hashes + end + 1 + hashes)
}

/// Length of a character at the start; 0 for a lifetime.
fn character(text: &str) -> usize {
    let mut chars = text.char_indices().skip(1);
    match chars.next() {
        Some((_, '\\')) => text[3..].find('\'').map_or(0, |end| 3 + end + 1),
        Some(_) => match chars.next() {
            Some((at, '\'')) => at + 1,
            _ => 0,
        },
        None => 0,
    }
}
