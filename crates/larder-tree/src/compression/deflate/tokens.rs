use super::token::Token;

/// How many tokens there is room for: one for each byte of a block.
const MAX_TOKENS: usize = 1 << 16;

/// The tokens of a block, and how often each of their parts occurs.
#[derive(Debug)]
pub(super) struct Tokens {
    buffer: Box<[Token; MAX_TOKENS]>,
    count: usize,
    /// By [`Token::first`].
    pub(super) firsts: [u32; Token::FIRSTS],
    /// By [`Token::second`].
    pub(super) seconds: [u32; Token::SECONDS],
}

impl Default for Tokens {
    fn default() -> Self {
        let buffer = vec![Token::default(); MAX_TOKENS].into_boxed_slice();
        Self {
            buffer: buffer.try_into().expect("it has this length"),
            count: 0,
            firsts: [0; Token::FIRSTS],
            seconds: [0; Token::SECONDS],
        }
    }
}

impl Tokens {
    pub(super) fn as_slice(&self) -> &[Token] {
        &self.buffer[..self.count]
    }

    /// Starts a new block, of 64 Ki tokens at most.
    pub(super) fn restart(&mut self) -> TokenWriter<'_> {
        self.firsts.fill(0);
        self.seconds.fill(0);
        TokenWriter {
            buffer: &mut self.buffer,
            firsts: &mut self.firsts,
            seconds: &mut self.seconds,
            total: &mut self.count,
            count: 0,
        }
    }
}

/// Writes tokens. It holds its state by itself, so that it can stay in registers.
pub(super) struct TokenWriter<'a> {
    buffer: &'a mut [Token; MAX_TOKENS],
    firsts: &'a mut [u32; Token::FIRSTS],
    seconds: &'a mut [u32; Token::SECONDS],
    total: &'a mut usize,
    count: usize,
}

impl TokenWriter<'_> {
    #[inline(always)]
    pub(super) fn literal(&mut self, byte: u8) {
        self.firsts[usize::from(byte)] += 1;
        self.put(Token::literal(byte));
    }

    #[inline(always)]
    pub(super) fn reference(&mut self, length: usize, distance: usize) {
        let token = Token::reference(length, distance);
        self.firsts[token.first()] += 1;
        self.seconds[token.second()] += 1;
        self.put(token);
    }

    /// Takes back the last `count` tokens, which are literals.
    pub(super) fn take_back(&mut self, count: usize) {
        for _ in 0..count {
            self.count -= 1;
            let literal = self.buffer[self.count % MAX_TOKENS];
            self.firsts[literal.first()] -= 1;
        }
    }

    pub(super) fn finish(self) {
        *self.total = self.count;
    }

    #[inline(always)]
    fn put(&mut self, token: Token) {
        self.buffer[self.count % MAX_TOKENS] = token;
        self.count += 1;
    }
}
