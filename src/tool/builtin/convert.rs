//! Converts between units: a table of what each is in the first of its kind.

use std::str::FromStr as _;

use rust_decimal::Decimal;
use serde_json::{Value, json};

use super::text;

/// Digits of a result that say something, where a division does not end.
const DIGITS: u32 = 12;
/// With so many digits a division was cut off, or at so many behind the point.
const CUT: (i128, u32) = (10_i128.pow(27), 28);

/// Names, what one is in the base unit as a fraction, and what is added then. Those with capitals are
/// meant as they are written: `mW` is not `MW`.
type Unit = (&'static [&'static str], &'static str, &'static str, &'static str);

/// Kinds of units. Within one, each can be converted to each.
const KINDS: &[(&str, &[Unit])] = &[
    ("length", LENGTH),
    ("area", AREA),
    ("volume", VOLUME),
    ("mass", MASS),
    ("speed", SPEED),
    ("time", TIME),
    ("temperature", TEMPERATURE),
    ("energy", ENERGY),
    ("power", POWER),
    ("pressure", PRESSURE),
    ("angle", ANGLE),
    ("data", DATA),
];

const LENGTH: &[Unit] = &[
    (&["m", "meter", "metre"], "1", "1", "0"),
    (&["km", "kilometer", "kilometre"], "1000", "1", "0"),
    (&["Mm", "megameter", "megametre"], "1000000", "1", "0"),
    (&["dm", "decimeter", "decimetre"], "1", "10", "0"),
    (&["cm", "centimeter", "centimetre"], "1", "100", "0"),
    (&["mm", "millimeter", "millimetre"], "1", "1000", "0"),
    (&["um", "µm", "micrometer", "micrometre"], "1", "1000000", "0"),
    (&["nm", "nanometer", "nanometre"], "1", "1000000000", "0"),
    (&["in", "inch", "inches", "\""], "0.0254", "1", "0"),
    (&["ft", "foot", "feet", "'"], "0.3048", "1", "0"),
    (&["yd", "yard"], "0.9144", "1", "0"),
    (&["mi", "mile"], "1609.344", "1", "0"),
    (&["nmi", "NM", "nautical mile"], "1852", "1", "0"),
    (&["ly", "light year"], "9460730472580800", "1", "0"),
    (&["au", "astronomical unit"], "149597870700", "1", "0"),
];
const AREA: &[Unit] = &[
    (&["m2", "m²", "square meter", "square metre"], "1", "1", "0"),
    (&["km2", "km²", "square kilometer", "square kilometre"], "1000000", "1", "0"),
    (&["cm2", "cm²", "square centimeter", "square centimetre"], "1", "10000", "0"),
    (&["mm2", "mm²", "square millimeter", "square millimetre"], "1", "1000000", "0"),
    (&["ha", "hectare"], "10000", "1", "0"),
    (&["in2", "in²", "sq in", "square inch"], "0.00064516", "1", "0"),
    (&["ft2", "ft²", "sq ft", "square foot", "square feet"], "0.09290304", "1", "0"),
    (&["yd2", "yd²", "sq yd", "square yard"], "0.83612736", "1", "0"),
    (&["mi2", "mi²", "sq mi", "square mile"], "2589988.110336", "1", "0"),
    (&["ac", "acre"], "4046.8564224", "1", "0"),
];
const VOLUME: &[Unit] = &[
    (&["l", "liter", "litre"], "1", "1", "0"),
    (&["ml", "milliliter", "millilitre", "cm3", "cm³"], "1", "1000", "0"),
    (&["cl", "centiliter", "centilitre"], "1", "100", "0"),
    (&["dl", "deciliter", "decilitre"], "1", "10", "0"),
    (&["ML", "megaliter", "megalitre"], "1000000", "1", "0"),
    (&["m3", "m³", "cubic meter", "cubic metre"], "1000", "1", "0"),
    (&["tsp", "teaspoon"], "0.00492892159375", "1", "0"),
    (&["tbsp", "tablespoon"], "0.01478676478125", "1", "0"),
    (&["fl oz", "floz", "fluid ounce"], "0.0295735295625", "1", "0"),
    (&["cup"], "0.2365882365", "1", "0"),
    (&["pt", "pint"], "0.473176473", "1", "0"),
    (&["qt", "quart"], "0.946352946", "1", "0"),
    (&["gal", "gallon"], "3.785411784", "1", "0"),
    (&["imperial gallon", "uk gal"], "4.54609", "1", "0"),
    (&["imperial pint", "uk pt"], "0.56826125", "1", "0"),
    (&["ft3", "ft³", "cubic foot", "cubic feet"], "28.316846592", "1", "0"),
    (&["in3", "in³", "cubic inch"], "0.016387064", "1", "0"),
    (&["bbl", "barrel"], "158.987294928", "1", "0"),
];
const MASS: &[Unit] = &[
    (&["kg", "kilogram"], "1", "1", "0"),
    (&["g", "gram"], "1", "1000", "0"),
    (&["mg", "milligram"], "1", "1000000", "0"),
    (&["ug", "µg", "microgram"], "1", "1000000000", "0"),
    (&["t", "Mg", "tonne", "metric ton", "megagram"], "1000", "1", "0"),
    (&["lb", "lbs", "pound"], "0.45359237", "1", "0"),
    (&["oz", "ounce"], "0.028349523125", "1", "0"),
    (&["st", "stone"], "6.35029318", "1", "0"),
    (&["short ton", "us ton"], "907.18474", "1", "0"),
    (&["long ton", "uk ton"], "1016.0469088", "1", "0"),
    (&["ct", "carat"], "0.0002", "1", "0"),
];
const SPEED: &[Unit] = &[
    (&["m/s", "mps", "meters per second", "metres per second"], "1", "1", "0"),
    (&["km/h", "kmh", "kph"], "1000", "3600", "0"),
    (&["mph", "mi/h", "miles per hour"], "0.44704", "1", "0"),
    (&["kn", "kt", "knot"], "1852", "3600", "0"),
    (&["ft/s", "fps", "feet per second"], "0.3048", "1", "0"),
];
const TIME: &[Unit] = &[
    (&["s", "sec", "second"], "1", "1", "0"),
    (&["ms", "millisecond"], "1", "1000", "0"),
    (&["Ms", "megasecond"], "1000000", "1", "0"),
    (&["us", "µs", "microsecond"], "1", "1000000", "0"),
    (&["ns", "nanosecond"], "1", "1000000000", "0"),
    (&["min", "minute"], "60", "1", "0"),
    (&["h", "hr", "hour"], "3600", "1", "0"),
    (&["d", "day"], "86400", "1", "0"),
    (&["wk", "week"], "604800", "1", "0"),
    // Julian years, as astronomers have them.
    (&["yr", "year"], "31557600", "1", "0"),
];
const TEMPERATURE: &[Unit] = &[
    (&["k", "kelvin"], "1", "1", "0"),
    (&["c", "°c", "celsius"], "1", "1", "273.15"),
    (&["f", "°f", "fahrenheit"], "5", "9", "459.67"),
    (&["r", "°r", "rankine"], "5", "9", "0"),
];
const ENERGY: &[Unit] = &[
    (&["j", "joule"], "1", "1", "0"),
    (&["mJ", "millijoule"], "1", "1000", "0"),
    (&["kj", "kilojoule"], "1000", "1", "0"),
    (&["mj", "megajoule"], "1000000", "1", "0"),
    (&["cal", "calorie"], "4.184", "1", "0"),
    (&["kcal", "kilocalorie"], "4184", "1", "0"),
    (&["wh", "watt hour"], "3600", "1", "0"),
    (&["kwh", "kilowatt hour"], "3600000", "1", "0"),
    (&["btu"], "1055.05585262", "1", "0"),
];
const POWER: &[Unit] = &[
    (&["w", "watt"], "1", "1", "0"),
    (&["mW", "milliwatt"], "1", "1000", "0"),
    (&["kw", "kilowatt"], "1000", "1", "0"),
    (&["mw", "megawatt"], "1000000", "1", "0"),
    (&["hp", "horsepower"], "745.69987158227022", "1", "0"),
    (&["ps", "metric horsepower"], "735.49875", "1", "0"),
];
const PRESSURE: &[Unit] = &[
    (&["pa", "pascal"], "1", "1", "0"),
    (&["hpa", "hectopascal", "mbar", "millibar"], "100", "1", "0"),
    (&["kpa", "kilopascal"], "1000", "1", "0"),
    (&["bar"], "100000", "1", "0"),
    (&["atm", "atmosphere"], "101325", "1", "0"),
    (&["psi"], "6894.757293168", "1", "0"),
    (&["mmhg", "torr"], "101325", "760", "0"),
];
const ANGLE: &[Unit] = &[
    (&["deg", "°", "degree"], "1", "1", "0"),
    (&["rad", "radian"], "57.295779513082320876798154814", "1", "0"),
    (&["grad", "gon", "gradian"], "9", "10", "0"),
    (&["turn", "revolution"], "360", "1", "0"),
    (&["arcmin", "arcminute"], "1", "60", "0"),
    (&["arcsec", "arcsecond"], "1", "3600", "0"),
];
/// `b` is a byte here; bits are spelled out.
const DATA: &[Unit] = &[
    (&["b", "byte"], "1", "1", "0"),
    (&["bit"], "1", "8", "0"),
    (&["kb", "kilobyte"], "1000", "1", "0"),
    (&["mb", "megabyte"], "1000000", "1", "0"),
    (&["gb", "gigabyte"], "1000000000", "1", "0"),
    (&["tb", "terabyte"], "1000000000000", "1", "0"),
    (&["pb", "petabyte"], "1000000000000000", "1", "0"),
    (&["kib", "kibibyte"], "1024", "1", "0"),
    (&["mib", "mebibyte"], "1048576", "1", "0"),
    (&["gib", "gibibyte"], "1073741824", "1", "0"),
    (&["tib", "tebibyte"], "1099511627776", "1", "0"),
    (&["kbit", "kilobit"], "125", "1", "0"),
    (&["mbit", "megabit"], "125000", "1", "0"),
    (&["gbit", "gigabit"], "125000000", "1", "0"),
];

pub(super) fn schema() -> Value {
    json!({
        "type": "object",
        "required": ["value", "from", "to"],
        "additionalProperties": false,
        "properties": {
            "value": {"type": ["number", "string"], "description": "a number, or its decimal digits"},
            "from": {"type": "string", "maxLength": 40, "description": "a unit, such as km or °F"},
            "to": {"type": "string", "maxLength": 40},
        },
    })
}

pub(super) fn run(args: &Value) -> Result<Value, String> {
    let written = match &args["value"] {
        Value::String(text) => text.trim().to_owned(),
        value => value.to_string(),
    };
    let value = Decimal::from_str(&written).or_else(|_| Decimal::from_scientific(&written));
    let value = value.map_err(|_| format!("{written} is no number of up to 28 digits"))?;
    let (from, to) = (text(args, "from"), text(args, "to"));
    let result = convert(value, from, to)?;
    Ok(json!({"result": result.to_string(), "unit": to}))
}

fn convert(value: Decimal, from: &str, to: &str) -> Result<Decimal, String> {
    let (from, to) = (find(from)?, find(to)?);
    let together = from.iter().find_map(|(kind, unit)| {
        let other = to.iter().find(|(other, _)| other == kind)?;
        Some((*unit, other.1))
    });
    let (from, to) = together.ok_or_else(|| {
        let kind = |units: &[(&'static str, &Unit)]| units.first().map_or("", |(kind, _)| *kind);
        format!("{} cannot become {}", kind(&from), kind(&to))
    })?;
    let wrong = || "the result is too large".to_owned();
    let number = |text: &str| Decimal::from_str(text).map_err(|_| wrong());
    // Multiplied before anything is divided: that is exact for longer.
    let base = value.checked_add(number(from.3)?).ok_or_else(wrong)?;
    let over = base.checked_mul(number(from.1)?).and_then(|it| it.checked_mul(number(to.2).ok()?));
    let under = number(from.2)?.checked_mul(number(to.1)?).ok_or_else(wrong)?;
    let result = over.and_then(|over| over.checked_div(under)).ok_or_else(wrong)?;
    let quotient = result.normalize();
    let result = result.checked_sub(number(to.3)?).ok_or_else(wrong)?;
    if quotient.mantissa().abs() < CUT.0 && quotient.scale() < CUT.1 {
        return Ok(result.normalize());
    }
    Ok(result.round_sf(DIGITS).unwrap_or(result).normalize())
}

/// The units of this name, of each kind that has one: a few names are in several. What is spelled
/// exactly so comes before what is one in small letters, and that before plurals.
fn find(written: &str) -> Result<Vec<(&'static str, &'static Unit)>, String> {
    let exact = written.trim();
    let name = exact.to_lowercase();
    for name in [exact, &name, name.strip_suffix('s').unwrap_or(&name)] {
        let unit = |units: &'static [Unit]| units.iter().find(|unit| unit.0.contains(&name));
        let found = KINDS.iter().filter_map(|(kind, units)| Some((*kind, unit(units)?)));
        let found: Vec<_> = found.collect();
        if !found.is_empty() {
            return Ok(found);
        }
    }
    Err(format!("the unit {written:?} is not known"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_become_others_of_their_kind() {
        for (value, from, to, result) in [
            ("1", "mi", "km", "1.609344"),
            ("26.2", "miles", "km", "42.1648128"),
            ("100", "°C", "°F", "212"),
            ("-40", "F", "C", "-40"),
            ("0", "celsius", "kelvin", "273.15"),
            ("5", "feet", "inches", "60"),
            ("72", "km/h", "m/s", "20"),
            ("1", "GiB", "MB", "1073.741824"),
            ("8", "bits", "bytes", "1"),
            ("90", "min", "h", "1.5"),
            ("1", "lb", "g", "453.59237"),
            ("3", "ft", "m", "0.9144"),
            ("1", "acre", "m²", "4046.8564224"),
            ("2", "weeks", "days", "14"),
            ("180", "deg", "rad", "3.14159265359"),
            ("1", "mW", "W", "0.001"),
            ("1", "MW", "W", "1000000"),
            ("1", "mJ", "J", "0.001"),
            ("1", "Mm", "m", "1000000"),
            ("1", "NM", "km", "1.852"),
            ("1", "TiB", "byte", "1099511627776"),
            ("1", "ly", "m", "9460730472580800"),
            ("1", "m", "ft", "3.28083989501"),
            ("1", "F", "C", "-17.2222222222"),
        ] {
            let found = convert(value.parse().unwrap(), from, to).unwrap();
            assert_eq!(found.to_string(), result, "{value} {from} to {to}");
        }
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        let one = Decimal::ONE;
        assert!(convert(one, "km", "kg").unwrap_err().contains("cannot become"));
        assert!(convert(one, "ms", "m").unwrap_err().contains("cannot become"));
        assert!(convert(one, "smoots", "m").unwrap_err().contains("not known"));
        assert!(run(&json!({"value": "ten", "from": "m", "to": "km"})).is_err());
        assert!(convert(Decimal::MAX, "ly", "nm").is_err());
    }

    #[test]
    fn every_unit_can_be_read_and_becomes_itself() {
        for (_, units) in KINDS {
            for (names, ..) in *units {
                let found = convert(Decimal::from(7), names[0], names[0]).unwrap();
                assert_eq!(found, Decimal::from(7), "{names:?}");
            }
        }
    }
}
