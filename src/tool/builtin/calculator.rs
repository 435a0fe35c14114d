//! Calculates what is written as people write it, exactly where decimals can be exact.

use rust_decimal::{Decimal, MathematicalOps as _};
use serde_json::{Value, json};

use super::text;

/// No expression that a person means is longer or deeper.
const LONGEST: usize = 2000;
const DEEPEST: usize = 50;
/// Of a power, the largest exponent.
const MOST_EXPONENT: u32 = 1000;

pub(super) fn schema() -> Value {
    json!({
        "type": "object",
        "required": ["expression"],
        "additionalProperties": false,
        "properties": {
            "expression": {
                "type": "string",
                "maxLength": LONGEST,
                "description": "for example: round(19.99 * 3 * 1.19, 2)",
            },
        },
    })
}

pub(super) fn run(args: &Value) -> Result<Value, String> {
    let result = evaluate(text(args, "expression"))?;
    Ok(json!({"result": result.normalize().to_string()}))
}

fn evaluate(expression: &str) -> Result<Decimal, String> {
    if expression.len() > LONGEST {
        return Err(format!("the expression is longer than {LONGEST} bytes"));
    }
    let mut reader = Reader { tokens: tokens(expression)?, next: 0, depth: 0 };
    let result = reader.expression(0)?;
    match reader.peek() {
        None => Ok(result),
        Some(token) => Err(format!("{} stands where the expression should end", token.shown())),
    }
}

#[derive(Debug, Clone, PartialEq)]
enum Token {
    Number(Decimal),
    Name(String),
    Sign(char),
}

// === impl Token ===

impl Token {
    fn shown(&self) -> String {
        match self {
            Self::Number(number) => number.to_string(),
            Self::Name(name) => format!("{name:?}"),
            Self::Sign(sign) => format!("`{sign}`"),
        }
    }
}

fn tokens(text: &str) -> Result<Vec<Token>, String> {
    let (mut tokens, mut rest) = (Vec::new(), text);
    while let Some(first) = rest.chars().next() {
        let length = match first {
            _ if first.is_whitespace() => first.len_utf8(),
            '0'..='9' | '.' => {
                let length = number_length(rest);
                tokens.push(Token::Number(number(&rest[..length])?));
                length
            }
            'a'..='z' | 'A'..='Z' => {
                let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
                let length = rest.find(|c| !is_name(c)).unwrap_or(rest.len());
                tokens.push(Token::Name(rest[..length].to_ascii_lowercase()));
                length
            }
            '*' if rest.starts_with("**") => {
                tokens.push(Token::Sign('^'));
                2
            }
            '+' | '-' | '*' | '/' | '%' | '^' | '!' | '(' | ')' | ',' => {
                tokens.push(Token::Sign(first));
                1
            }
            '×' | '·' | '÷' | '−' | 'π' => {
                tokens.push(match first {
                    '÷' => Token::Sign('/'),
                    '−' => Token::Sign('-'),
                    'π' => Token::Name("pi".to_owned()),
                    _ => Token::Sign('*'),
                });
                first.len_utf8()
            }
            _ => return Err(format!("{first:?} means nothing here")),
        };
        rest = &rest[length..];
    }
    Ok(tokens)
}

/// Digits, `_` between them, a fraction and an exponent.
fn number_length(text: &str) -> usize {
    let digits = |text: &str| {
        text.find(|c: char| !c.is_ascii_digit() && c != '_' && c != '.').unwrap_or(text.len())
    };
    let length = digits(text);
    let Some(rest) = text[length..].strip_prefix(['e', 'E']) else { return length };
    let sign = usize::from(rest.starts_with(['+', '-']));
    let exponent = rest[sign..].find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len() - sign);
    if exponent == 0 { length } else { length + 1 + sign + exponent }
}

fn number(text: &str) -> Result<Decimal, String> {
    let digits = text.replace('_', "");
    let read = if digits.contains(['e', 'E']) {
        Decimal::from_scientific(&digits)
    } else {
        Decimal::from_str_exact(&digits)
    };
    read.map_err(|_| format!("{text} is no number, or has more than 28 digits"))
}

struct Reader {
    tokens: Vec<Token>,
    next: usize,
    depth: usize,
}

fn overflow() -> String {
    "the result is too large".to_owned()
}

// === impl Reader ===

impl Reader {
    fn peek(&self) -> Option<&Token> {
        self.tokens.get(self.next)
    }

    fn take(&mut self, sign: char) -> bool {
        let found = self.peek() == Some(&Token::Sign(sign));
        self.next += usize::from(found);
        found
    }

    /// What binds at least as tightly as `least`: sums 1, products 3, signs 5, powers 7.
    fn expression(&mut self, least: u8) -> Result<Decimal, String> {
        self.depth += 1;
        if self.depth > DEEPEST {
            return Err("the expression is too deep".to_owned());
        }
        let mut left = self.first()?;
        while let Some(Token::Sign(sign)) = self.peek() {
            let sign = *sign;
            let (binds, right) = match sign {
                '+' | '-' => (1, 2),
                '*' | '/' | '%' => (3, 4),
                // From right to left.
                '^' => (7, 6),
                '!' => (9, 0),
                _ => break,
            };
            if binds < least {
                break;
            }
            self.next += 1;
            left = if sign == '!' {
                factorial(left)?
            } else {
                let right = self.expression(right)?;
                combine(sign, left, right)?
            };
        }
        self.depth -= 1;
        Ok(left)
    }

    fn first(&mut self) -> Result<Decimal, String> {
        let token = self.peek().cloned().ok_or("the expression ends too early")?;
        self.next += 1;
        match token {
            Token::Number(number) => Ok(number),
            Token::Sign('-') => Ok(-self.expression(5)?),
            Token::Sign('+') => self.expression(5),
            Token::Sign('(') => {
                let inner = self.expression(0)?;
                if self.take(')') { Ok(inner) } else { Err("a `(` is not closed".to_owned()) }
            }
            Token::Name(name) if self.take('(') => {
                let arguments = self.arguments()?;
                apply(&name, &arguments)
            }
            Token::Name(name) => match name.as_str() {
                "pi" => Ok(Decimal::PI),
                "e" => Ok(Decimal::E),
                _ => Err(format!("{name:?} is not known")),
            },
            Token::Sign(sign) => Err(format!("a number is missing before `{sign}`")),
        }
    }

    fn arguments(&mut self) -> Result<Vec<Decimal>, String> {
        let mut arguments = Vec::new();
        if self.take(')') {
            return Ok(arguments);
        }
        loop {
            arguments.push(self.expression(0)?);
            if self.take(')') {
                return Ok(arguments);
            }
            if !self.take(',') {
                return Err("a `)` is missing".to_owned());
            }
        }
    }
}

fn combine(sign: char, left: Decimal, right: Decimal) -> Result<Decimal, String> {
    if matches!(sign, '/' | '%') && right.is_zero() {
        return Err("nothing can be divided by zero".to_owned());
    }
    let result = match sign {
        '+' => left.checked_add(right),
        '-' => left.checked_sub(right),
        '*' => left.checked_mul(right),
        '/' => left.checked_div(right),
        '%' => left.checked_rem(right),
        _ => return power(left, right),
    };
    result.ok_or_else(overflow)
}

fn power(base: Decimal, exponent: Decimal) -> Result<Decimal, String> {
    if exponent.abs() > Decimal::from(MOST_EXPONENT) {
        return Err(format!("an exponent is beyond {MOST_EXPONENT}"));
    }
    if base.is_zero() && exponent.is_sign_negative() && !exponent.is_zero() {
        return Err("nothing can be divided by zero".to_owned());
    }
    if exponent.is_integer() {
        let whole = i64::try_from(exponent).map_err(|_| overflow())?;
        return base.checked_powi(whole).ok_or_else(overflow);
    }
    if base.is_sign_negative() {
        return Err("a fraction of a power of a negative number is not real".to_owned());
    }
    base.checked_powd(exponent).ok_or_else(overflow)
}

fn factorial(of: Decimal) -> Result<Decimal, String> {
    let whole = u32::try_from(of).ok().filter(|_| of.is_integer());
    let whole = whole.ok_or("only whole numbers from 0 have a factorial")?;
    // 28! has more digits than there are.
    if whole > 27 {
        return Err(overflow());
    }
    (2..=whole).try_fold(Decimal::ONE, |product, factor| {
        product.checked_mul(Decimal::from(factor)).ok_or_else(overflow)
    })
}

fn apply(name: &str, arguments: &[Decimal]) -> Result<Decimal, String> {
    let total = || {
        arguments
            .iter()
            .try_fold(Decimal::ZERO, |sum, it| sum.checked_add(*it).ok_or_else(overflow))
    };
    match (name, arguments) {
        ("sum", [_, ..]) => total(),
        ("avg", [_, ..]) => {
            let count = Decimal::from(arguments.len());
            total()?.checked_div(count).ok_or_else(overflow)
        }
        ("min", [first, rest @ ..]) => Ok(rest.iter().fold(*first, |least, it| least.min(*it))),
        ("max", [first, rest @ ..]) => Ok(rest.iter().fold(*first, |most, it| most.max(*it))),
        ("round", [of, digits]) => {
            let digits = u32::try_from(*digits).map_err(|_| "`round` takes 0 to 28 digits")?;
            Ok(round(*of, digits.min(28)))
        }
        (_, [of]) => apply_to_one(name, *of),
        _ => Err(format!("{name:?} is not known, or has other arguments")),
    }
}

/// As people round: a half goes away from zero.
fn round(of: Decimal, digits: u32) -> Decimal {
    of.round_dp_with_strategy(digits, rust_decimal::RoundingStrategy::MidpointAwayFromZero)
}

fn apply_to_one(name: &str, of: Decimal) -> Result<Decimal, String> {
    let positive = || {
        if of > Decimal::ZERO {
            Ok(())
        } else {
            Err(format!("`{name}` is only of what is above 0"))
        }
    };
    match name {
        "abs" => Ok(of.abs()),
        "round" => Ok(round(of, 0)),
        "floor" => Ok(of.floor()),
        "ceil" => Ok(of.ceil()),
        "sqrt" => of.sqrt().ok_or_else(|| "a negative number has no real root".to_owned()),
        "ln" => positive().and_then(|()| of.checked_ln().ok_or_else(overflow)),
        "log10" => positive().and_then(|()| of.checked_log10().ok_or_else(overflow)),
        "exp" => of.checked_exp().ok_or_else(overflow),
        "sin" => of.checked_sin().ok_or_else(overflow),
        "cos" => of.checked_cos().ok_or_else(overflow),
        "tan" => of.checked_tan().ok_or_else(overflow),
        _ => Err(format!("{name:?} is not known, or has other arguments")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decimals_are_exact_and_signs_bind_as_in_mathematics() {
        for (expression, result) in [
            ("0.1 + 0.2", "0.3"),
            ("2 + 3 * 4", "14"),
            ("(2 + 3) * 4", "20"),
            ("2 ^ 3 ^ 2", "512"),
            ("-2 ^ 2", "-4"),
            ("2 ** -1", "0.5"),
            ("10 - 3 - 2", "5"),
            ("7 % 4", "3"),
            ("5!", "120"),
            ("3!!", "720"),
            ("1_000_000 * 1.5e3", "1500000000"),
            ("round(19.99 * 3 * 1.19, 2)", "71.36"),
            ("round(2.5) + round(-2.5)", "0"),
            ("max(1, 2, min(9, 3))", "3"),
            ("avg(1, 2, 3, 4)", "2.5"),
            ("sqrt(2) ^ 2 - 2 < 1", ""),
            ("6 ÷ 2 × 4 − 1", "11"),
            ("2 * -3", "-6"),
            ("floor(-1.5) + ceil(1.2)", "0"),
            ("abs(-3) + e * 0 + pi * 0", "3"),
            ("log10(1000)", "3"),
        ] {
            let found = evaluate(expression).map(|it| it.normalize().to_string());
            assert_eq!(found.unwrap_or_default(), result, "{expression}");
        }
    }

    #[test]
    fn what_has_no_result_says_why() {
        let deep = "(".repeat(500);
        let signs = "-".repeat(1500);
        for bad in [
            "",
            "1 +",
            "(1",
            "1)",
            "1 / 0",
            "5 % (2 - 2)",
            "0 ^ -1",
            "sqrt(-1)",
            "ln(0)",
            "(-8) ^ 0.5",
            "foo(1)",
            "bar",
            "1 2",
            "99 ^ 999",
            "2 ^ 1001",
            "28!",
            "2.5!",
            "(-1)!",
            "1 @ 2",
            "1..2",
            "round()",
            "exp(1000)",
            "1e99",
            "9".repeat(40).as_str(),
            &deep,
            &signs,
        ] {
            assert!(evaluate(bad).is_err(), "{bad}");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_expression_is_too_strange(expression in "[-0-9+*/%^!(), .esqrtpilnoxabd]{0,60}") {
            let _ = evaluate(&expression);
        }
    }
}
