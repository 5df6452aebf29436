//! The text form of label selectors: `a=b,c in (d,e),!f,g>1`.
//!
//! Recursive descent, one token ahead; behind the last there is `End`. Each error names what was found and what was expected,
//! as upstream's parser does.

use super::{Operator, Requirement, SelectorError};
use crate::names;
use crate::status::quote;

#[derive(Clone, Debug, PartialEq, Eq)]
enum Token {
    Word(String),
    In,
    NotIn,
    Close,
    Open,
    Comma,
    Not,
    Equals,
    DoubleEquals,
    NotEquals,
    Greater,
    Less,
    Error(String),
    End,
}

impl Token {
    fn text(&self) -> &str {
        match self {
            Token::Word(word) | Token::Error(word) => word,
            Token::In => "in",
            Token::NotIn => "notin",
            Token::Close => ")",
            Token::Open => "(",
            Token::Comma => ",",
            Token::Not => "!",
            Token::Equals => "=",
            Token::DoubleEquals => "==",
            Token::NotEquals => "!=",
            Token::Greater => ">",
            Token::Less => "<",
            Token::End => "",
        }
    }

    /// Where a value may stand, `in` and `notin` are words like any other.
    fn word(&self) -> Option<&str> {
        match self {
            Token::Word(_) | Token::In | Token::NotIn => Some(self.text()),
            _ => None,
        }
    }
}

/// The requirements in the order of the text.
pub(super) fn parse(text: &str) -> Result<Vec<Requirement>, SelectorError> {
    let mut parser = Parser::new(text);
    let mut requirements = Vec::new();
    loop {
        let token = parser.peek();
        if *token == Token::End {
            return Ok(requirements);
        }
        if token.word().is_none() && *token != Token::Not {
            return Err(unexpected(token, "!, identifier, or 'end of string'"));
        }
        requirements.push(parser.requirement().map_err(SelectorError::Requirement)?);
        match parser.next() {
            Token::End => return Ok(requirements),
            Token::Comma => {
                let token = parser.peek();
                if token.word().is_none() && *token != Token::Not {
                    return Err(unexpected(token, "identifier after ','"));
                }
            }
            token => return Err(unexpected(&token, "',' or 'end of string'")),
        }
    }
}

fn unexpected(token: &Token, expected: &'static str) -> SelectorError {
    SelectorError::Unexpected { found: token.text().to_owned(), expected }
}

struct Parser<'a> {
    ahead: Token,
    /// Behind it.
    rest: &'a str,
}

impl Parser<'_> {
    fn new(text: &str) -> Parser<'_> {
        let mut parser = Parser { ahead: Token::End, rest: text };
        parser.next();
        parser
    }

    fn peek(&self) -> &Token {
        &self.ahead
    }

    fn next(&mut self) -> Token {
        let (ahead, length) = scan(self.rest);
        self.rest = &self.rest[length..];
        std::mem::replace(&mut self.ahead, ahead)
    }

    fn requirement(&mut self) -> Result<Requirement, String> {
        let mut token = self.next();
        let absent = token == Token::Not;
        if absent {
            token = self.next();
        }
        let Some(key) = token.word().map(str::to_owned) else {
            return Err(format!("found '{}', expected: identifier", token.text()));
        };
        let complaints = names::qualified_name(&key);
        if !complaints.is_empty() {
            return Err(format!("<nil>: Invalid value: {}: {}", quote(&key), complaints.join("; ")));
        }
        if absent {
            return Requirement::checked(key, Operator::DoesNotExist, Vec::new());
        }
        if matches!(self.peek(), Token::End | Token::Comma) {
            return Requirement::checked(key, Operator::Exists, Vec::new());
        }
        let operator = self.operator()?;
        let mut values = match operator {
            Operator::In | Operator::NotIn => self.values()?,
            _ => vec![self.exact_value()?],
        };
        values.sort();
        values.dedup();
        Requirement::checked(key, operator, values)
    }

    fn operator(&mut self) -> Result<Operator, String> {
        Ok(match self.next() {
            Token::In => Operator::In,
            Token::NotIn => Operator::NotIn,
            Token::Equals => Operator::Equals,
            Token::DoubleEquals => Operator::DoubleEquals,
            Token::NotEquals => Operator::NotEquals,
            Token::Greater => Operator::GreaterThan,
            Token::Less => Operator::LessThan,
            token => return Err(format!("found '{}', expected: in, notin, =, ==, !=, gt, lt", token.text())),
        })
    }

    fn exact_value(&mut self) -> Result<String, String> {
        if matches!(self.peek(), Token::End | Token::Comma) {
            return Ok(String::new());
        }
        let token = self.next();
        match token.word() {
            Some(word) => Ok(word.to_owned()),
            None => Err(format!("found '{}', expected: identifier", token.text())),
        }
    }

    /// `(a,b)`; an empty place between commas is the empty value.
    fn values(&mut self) -> Result<Vec<String>, String> {
        let token = self.next();
        if token != Token::Open {
            return Err(format!("found '{}' expected: '('", token.text()));
        }
        if *self.peek() == Token::Close {
            self.next();
            return Ok(vec![String::new()]);
        }
        if self.peek().word().is_none() && *self.peek() != Token::Comma {
            return Err(format!("found '{}', expected: ',', ')' or identifier", self.peek().text()));
        }
        let mut values = Vec::new();
        loop {
            let token = self.next();
            if let Some(word) = token.word() {
                values.push(word.to_owned());
                match self.peek() {
                    Token::Comma => {}
                    Token::Close => break,
                    other => return Err(format!("found '{}', expected: ',' or ')'", other.text())),
                }
            } else if token == Token::Comma {
                if values.is_empty() || *self.peek() == Token::Comma {
                    values.push(String::new());
                }
                if *self.peek() == Token::Close {
                    values.push(String::new());
                    break;
                }
            } else {
                return Err(format!("found '{}', expected: ',', or identifier", token.text()));
            }
        }
        self.next(); // the closing parenthesis just seen
        Ok(values)
    }
}

/// The first token of `text`, and where the next may begin.
fn scan(text: &str) -> (Token, usize) {
    let is_symbol = |c: char| "=!(),><".contains(c);
    let is_space = |c: char| " \t\r\n".contains(c);
    let rest = text.trim_start_matches(is_space);
    let spaces = text.len() - rest.len();
    let (token, length) = match rest.chars().next() {
        None | Some('\0') => (Token::End, 0),
        Some(first) if is_symbol(first) => symbol(rest),
        Some(_) => {
            let length = rest.find(|c| is_symbol(c) || is_space(c) || c == '\0').unwrap_or(rest.len());
            let token = match &rest[..length] {
                "in" => Token::In,
                "notin" => Token::NotIn,
                word => Token::Word(word.to_owned()),
            };
            (token, length)
        }
    };
    (token, spaces + length)
}

/// The longest operator at the start of `text`, and its length in bytes.
fn symbol(text: &str) -> (Token, usize) {
    let table = [
        ("==", Token::DoubleEquals),
        ("!=", Token::NotEquals),
        ("=", Token::Equals),
        ("!", Token::Not),
        (")", Token::Close),
        ("(", Token::Open),
        (",", Token::Comma),
        (">", Token::Greater),
        ("<", Token::Less),
    ];
    for (symbol, token) in table {
        if text.starts_with(symbol) {
            return (token, symbol.len());
        }
    }
    (Token::Error(text.to_owned()), text.len())
}
