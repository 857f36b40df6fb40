//! Bytes into lines, in bounded memory.

/// Cuts what it is given into lines.
#[derive(Debug)]
pub(super) struct LineCutter {
    bytes: Vec<u8>,
    /// Where the next line begins.
    start: usize,
    /// Up to where no line end was found.
    searched: usize,
    /// Most bytes of a line, without its end.
    most: usize,
    /// The rest of a line that was too long is passed over.
    passing: bool,
}

/// One line, or why it is none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Cut {
    Line(String),
    /// It is not UTF-8.
    NotText,
    /// It is longer than allowed. Said once, as soon as it is known; its rest is dropped as it comes.
    TooLong,
}

impl LineCutter {
    pub(super) fn new(most: usize) -> Self {
        Self { bytes: Vec::new(), start: 0, searched: 0, most, passing: false }
    }

    /// Adds bytes. Called only when [`LineCutter::cut`] has nothing more, so no more is kept than one line and `bytes`.
    pub(super) fn push(&mut self, bytes: &[u8]) {
        self.bytes.drain(..self.start);
        self.searched -= self.start;
        self.start = 0;
        self.bytes.extend_from_slice(bytes);
    }

    /// Returns what comes next, or nothing before more bytes have come.
    pub(super) fn cut(&mut self) -> Option<Cut> {
        loop {
            let unsearched = self.bytes.get(self.searched..).unwrap_or_default();
            let Some(end) = unsearched.iter().position(|byte| *byte == b'\n') else {
                self.searched = self.bytes.len();
                return self.without_end();
            };
            let end = self.searched + end;
            let line = self.bytes.get(self.start..end).unwrap_or_default();
            let line = line.strip_suffix(b"\r").unwrap_or(line);
            let cut = match line.len() > self.most {
                true => Cut::TooLong,
                false => std::str::from_utf8(line).map_or(Cut::NotText, |line| Cut::Line(line.to_owned())),
            };
            self.start = end + 1;
            self.searched = self.start;
            if !std::mem::take(&mut self.passing) {
                return Some(cut);
            }
        }
    }

    /// Whether a line has begun and not ended.
    pub(super) fn is_inside_line(&self) -> bool {
        self.passing || self.start < self.bytes.len()
    }

    /// Forgets a line that has begun; returns whether there was one that was not counted as too long already.
    pub(super) fn forget(&mut self) -> bool {
        let partial = self.start < self.bytes.len() && !self.passing;
        *self = Self::new(self.most);
        partial
    }

    /// Whether what has come of a line is too long already. One byte more may be the `\r` of its end.
    fn without_end(&mut self) -> Option<Cut> {
        let begun = self.bytes.get(self.start..).unwrap_or_default();
        let length = begun.strip_suffix(b"\r").unwrap_or(begun).len();
        if self.passing || length > self.most {
            self.bytes.clear();
            (self.start, self.searched) = (0, 0);
            return (!std::mem::replace(&mut self.passing, true)).then_some(Cut::TooLong);
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Gives `text` in pieces of every size, and returns what was cut, which must be the same for all.
    fn cut(most: usize, text: &[u8]) -> (Vec<Cut>, bool) {
        let in_pieces = |size: usize| {
            let mut cutter = LineCutter::new(most);
            let mut cuts = Vec::new();
            for piece in text.chunks(size) {
                cutter.push(piece);
                while let Some(cut) = cutter.cut() {
                    cuts.push(cut);
                }
                assert!(cutter.bytes.len() - cutter.start <= most + 1, "keeps too much");
            }
            let inside = cutter.is_inside_line();
            (cuts, inside, cutter.forget())
        };
        let whole = in_pieces(text.len());
        for size in 1..text.len() {
            assert_eq!(in_pieces(size), whole, "in pieces of {size}");
        }
        (whole.0, whole.2)
    }

    fn line(text: &str) -> Cut {
        Cut::Line(text.to_owned())
    }

    #[test]
    fn cuts_at_either_end_whatever_the_pieces() {
        let (cuts, partial) = cut(20, "a\r\nb\n\nlone\rcr\nü\n\r\n".as_bytes());
        assert_eq!(cuts, [line("a"), line("b"), line(""), line("lone\rcr"), line("ü"), line("")]);
        assert!(!partial);
    }

    #[test]
    fn a_line_without_its_end_is_partial() {
        assert_eq!(cut(20, b"whole\npart"), (vec![line("whole")], true));
        assert_eq!(cut(20, b"whole\n\r"), (vec![line("whole")], true));
    }

    #[test]
    fn a_line_that_is_too_long_is_said_once_and_passed_over_to_its_end() {
        assert_eq!(cut(3, b"abc\nabcd\nab\n"), (vec![line("abc"), Cut::TooLong, line("ab")], false));
        assert_eq!(cut(3, b"abc\r\nabcd\r\nx\n"), (vec![line("abc"), Cut::TooLong, line("x")], false));
        let endless = [&[b'x'; 1_000][..], b"\nend\n"].concat();
        assert_eq!(cut(3, &endless), (vec![Cut::TooLong, line("end")], false));
        assert_eq!(cut(3, &[b'x'; 1_000]), (vec![Cut::TooLong], false));
    }

    #[test]
    fn what_is_not_utf_8_costs_its_own_line_only() {
        assert_eq!(cut(9, b"a\n\xff\xfe\nb\n\xc3"), (vec![line("a"), Cut::NotText, line("b")], true));
    }
}
