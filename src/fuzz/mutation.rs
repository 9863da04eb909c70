//! Mutations of inputs.

/// Numbers at which parsers fail.
const NUMBERS: &[u64] = &[
    0,
    1,
    2,
    7,
    8,
    255,
    256,
    511,
    512,
    4096,
    65_535,
    65_536,
    0x7fff_ffff,
    0x8000_0000,
    0xffff_ffff,
    1 << 32,
    (1 << 40) - 1,
    1 << 56,
    (1 << 62) - 1,
    i64::MAX as u64,
    1 << 63,
    u64::MAX - 1,
    u64::MAX,
];
/// Texts at which parsers fail.
const TEXTS: &[&[u8]] = &[
    b"-1",
    b"0",
    b"9223372036854775807",
    b"9223372036854775808",
    b"18446744073709551615",
    b"18446744073709551616",
    b"170141183460469231731687303715884105727",
    b"-170141183460469231731687303715884105728",
    b"99999999999999999999999999999999999999999999",
    b"1e309",
    b"-0.0",
    b"1.",
    b".",
    b"NaN",
    b"inf",
    b"null",
    b"true",
    b"[]",
    b"{}",
    b"\"\"",
    b"\0",
    b"\n",
    b"\r\n",
    b" ",
    b"/",
    b"../",
    b":",
    b"\xff\xfe",
    b"\xc3",
    b"\xe2\x80\xae",
    b"\xf0\x9f\x98\x80",
    b"\x1b[2J",
    b"\x1b]0;x\x07",
    b"\\u0000",
    b"\\ud800",
    b"&#0;",
    b"&#x10ffff;",
    b"&lt;",
    b"<!--",
    b"-->",
    b"<![CDATA[",
    b"]]>",
    b"<?xml version='1.0'?>",
    b"<!DOCTYPE a [<!ENTITY b \"bbbbbbbbbbbbbbbb\"><!ENTITY c \"&b;&b;&b;&b;&b;&b;&b;&b;\">]>",
    b"&c;",
    b"xmlns:x='y'",
];
/// Brackets for deep nesting.
const PAIRS: &[(&[u8], &[u8])] = &[
    (b"[", b"]"),
    (b"{\"a\":", b"}"),
    (b"{\"file\":", b"}"),
    (b"<a>", b"</a>"),
    (b"<disk>", b"</disk>"),
    (
        b"<backingStore type='file'><source file='/a'/>",
        b"</backingStore>",
    ),
    (b"\"", b"\""),
    (b"(", b")"),
];

/// Pseudo-random numbers (splitmix64).
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Returns a number below `end`; 0 if that is 0.
    pub(crate) fn below(&mut self, end: usize) -> usize {
        (self.next() % end.max(1) as u64) as usize
    }

    fn choose<'a, T>(&mut self, items: &'a [T]) -> Option<&'a T> {
        items.get(self.below(items.len()))
    }

    /// Returns a length up to `end`, most often a short one.
    fn length(&mut self, end: usize) -> usize {
        let bits = self.below(usize::BITS.saturating_sub(end.leading_zeros()) as usize + 1);
        self.below((1 << bits.min(40)) + 1).min(end)
    }

    fn range(&mut self, length: usize) -> std::ops::Range<usize> {
        let start = self.below(length + 1);
        start..start + self.length(length - start)
    }
}

/// Changes `input` a few times; it has at most `max_bytes` then.
pub(crate) fn mutate(
    random: &mut Random,
    input: &mut Vec<u8>,
    corpus: &[Vec<u8>],
    words: &[Vec<u8>],
    max_bytes: usize,
) {
    for _ in 0..=random.below(4) {
        mutate_once(random, input, corpus, words, max_bytes);
    }
    input.truncate(max_bytes);
}

fn mutate_once(
    random: &mut Random,
    input: &mut Vec<u8>,
    corpus: &[Vec<u8>],
    words: &[Vec<u8>],
    max_bytes: usize,
) {
    let at = random.below(input.len() + 1);
    match random.below(16) {
        0 | 1 => {
            if let Some(byte) = input.get_mut(at) {
                *byte ^= 1 << random.below(8);
            }
        }
        2 => {
            if let Some(byte) = input.get_mut(at) {
                *byte = random.next() as u8;
            }
        }
        3 => input.truncate(at),
        4 => drop(input.drain(random.range(input.len()))),
        5 => {
            let bytes: Vec<u8> = (0..random.length(64))
                .map(|_| random.next() as u8)
                .collect();
            insert(input, at, &bytes, max_bytes);
        }
        6 => {
            let number = *random.choose(NUMBERS).unwrap_or(&0);
            let number = number.wrapping_add(random.below(3) as u64).wrapping_sub(1);
            let width = [1, 2, 4, 8][random.below(4)];
            let bytes = match random.below(2) {
                0 => number.to_be_bytes()[8 - width..].to_vec(),
                _ => number.to_le_bytes()[..width].to_vec(),
            };
            // Fields are mostly aligned.
            let at = if random.below(4) == 0 {
                at
            } else {
                at / width * width
            };
            overwrite(input, at, &bytes);
        }
        7 | 8 => replace_number(random, input, at, max_bytes),
        9 => {
            let text = random.choose(TEXTS).copied().unwrap_or_default();
            insert(input, at, text, max_bytes);
        }
        10 | 11 => {
            let word = random.choose(words).cloned().unwrap_or_default();
            match random.below(2) {
                0 => insert(input, at, &word, max_bytes),
                _ => overwrite(input, at, &word),
            }
        }
        12 => {
            let part = input[random.range(input.len())].to_vec();
            match random.below(2) {
                0 => insert(input, at, &part, max_bytes),
                _ => overwrite(input, at, &part),
            }
        }
        13 => {
            if let Some(other) = random.choose(corpus) {
                let part = &other[random.range(other.len())];
                insert(input, at, part, max_bytes);
            }
        }
        14 => {
            // Long runs.
            let part = match random.below(2) {
                0 => input[random.range(input.len())].to_vec(),
                _ => random.choose(words).cloned().unwrap_or_default(),
            };
            let count = random.length(max_bytes / part.len().max(1));
            insert(input, at, &part.repeat(count), max_bytes);
        }
        _ => {
            // Deep nesting.
            let (open, close) = random.choose(PAIRS).copied().unwrap_or_default();
            let count = random.length(max_bytes / (open.len() + close.len()).max(1));
            let range = random.range(input.len());
            insert(input, range.end, &close.repeat(count), max_bytes);
            insert(input, range.start, &open.repeat(count), max_bytes);
        }
    }
}

/// Replaces the decimal number at or after `at`.
fn replace_number(random: &mut Random, input: &mut Vec<u8>, at: usize, max_bytes: usize) {
    let is_digit = |byte: &u8| byte.is_ascii_digit();
    let Some(start) = input.iter().skip(at).position(is_digit) else {
        return;
    };
    let start = at + start;
    let digits = input.iter().skip(start).take_while(|byte| is_digit(byte));
    let end = start + digits.count();
    let number = match random.below(3) {
        0 => random.choose(TEXTS).copied().unwrap_or_default().to_vec(),
        1 => random
            .choose(NUMBERS)
            .unwrap_or(&0)
            .to_string()
            .into_bytes(),
        _ => random.next().to_string().into_bytes(),
    };
    input.drain(start..end);
    insert(input, start, &number, max_bytes);
}

fn insert(input: &mut Vec<u8>, at: usize, bytes: &[u8], max_bytes: usize) {
    let length = bytes.len().min(max_bytes.saturating_sub(input.len()));
    input.splice(at..at, bytes[..length].iter().copied());
}

fn overwrite(input: &mut [u8], at: usize, bytes: &[u8]) {
    for (slot, byte) in input.iter_mut().skip(at).zip(bytes) {
        *slot = *byte;
    }
}
