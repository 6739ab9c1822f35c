//! The functions of the standard library, those of buildx.

mod collection;
mod digest;
mod encoding;
mod format;
mod network;
mod number;
mod pattern;
mod set;
mod text;
mod time;
mod version;

use crate::definitions::Definitions;
use crate::error::{Error, suggestion};
use crate::value::Value;

type Done = Result<Value, Error>;

/// What buildx has and larder lacks: the first would take too long on purpose, the others work
/// on what bake files can't hold, keys and bytes.
const MISSING: [&str; 4] = ["bcrypt", "bytesslice", "byteslen", "rsadecrypt"];

/// Evaluated in `eval`, since they look at how their arguments are written.
const SPECIAL: [&str; 3] = ["can", "convert", "try"];

/// Calls the function `name`.
///
/// # Errors
/// If there is no such function, or the arguments are not what it takes.
pub(crate) fn call(name: &str, args: &[Value], definitions: &Definitions) -> Done {
    match find(name) {
        Some(Function::Pure(function)) => {
            let value = function(args)?;
            definitions.budget.spend_text(size_of(&value))?;
            Ok(value)
        }
        Some(Function::Ambient(function)) => function(args, definitions),
        None if MISSING.contains(&name) => Err(Error::unsupported(format!(
            "the function `{name}` is not supported"
        ))),
        None => {
            let names = definitions.function_names().chain(NAMES.iter().copied());
            let known = suggestion(name, names.chain(SPECIAL));
            Err(Error::definition(format!(
                "there is no function named `{name}`{known}"
            )))
        }
    }
}

/// Whether the standard library has a function `name`.
pub(crate) fn is_known(name: &str) -> bool {
    SPECIAL.contains(&name) || MISSING.contains(&name) || find(name).is_some()
}

/// The bytes of text that a function made, about.
fn size_of(value: &Value) -> usize {
    match value {
        Value::String(text) => text.len(),
        Value::List(elements) => elements.iter().map(size_of).sum::<usize>() + elements.len(),
        Value::Set(elements) => elements.iter().map(size_of).sum::<usize>() + elements.len(),
        Value::Object(entries) => entries
            .iter()
            .map(|(key, value)| key.len() + size_of(value))
            .sum(),
        Value::Null | Value::Bool(_) | Value::Number(_) => 1,
    }
}

enum Function {
    Pure(fn(&[Value]) -> Done),
    /// Sees the clock or the environment.
    Ambient(fn(&[Value], &Definitions) -> Done),
}

macro_rules! functions {
    ($($name:literal => $kind:ident($function:path),)*) => {
        /// Their names, sorted.
        const NAMES: &[&str] = &[$($name),*];

        fn find(name: &str) -> Option<Function> {
            match name {
                $($name => Some(Function::$kind($function)),)*
                _ => None,
            }
        }
    };
}

functions! {
    "absolute" => Pure(number::absolute),
    "add" => Pure(number::add),
    "and" => Pure(number::and),
    "base64decode" => Pure(encoding::base64_decode),
    "base64encode" => Pure(encoding::base64_encode),
    "basename" => Pure(text::basename),
    "ceil" => Pure(number::ceil),
    "chomp" => Pure(text::chomp),
    "chunklist" => Pure(collection::chunklist),
    "cidrhost" => Pure(network::host),
    "cidrnetmask" => Pure(network::netmask),
    "cidrsubnet" => Pure(network::subnet),
    "cidrsubnets" => Pure(network::subnets),
    "coalesce" => Pure(collection::coalesce),
    "coalescelist" => Pure(collection::coalescelist),
    "compact" => Pure(collection::compact),
    "concat" => Pure(collection::concat),
    "contains" => Pure(collection::contains),
    "csvdecode" => Pure(encoding::csv_decode),
    "dirname" => Pure(text::dirname),
    "distinct" => Pure(collection::distinct),
    "divide" => Pure(number::divide),
    "element" => Pure(collection::element),
    "equal" => Pure(number::equal),
    "flatten" => Pure(collection::flatten),
    "floor" => Pure(number::floor),
    "format" => Pure(format::format),
    "formatdate" => Pure(time::format_date),
    "formatlist" => Pure(format::format_list),
    "formattimestamp" => Pure(time::format_timestamp),
    "greaterthan" => Pure(number::greater),
    "greaterthanorequalto" => Pure(number::greater_or_equal),
    "hasindex" => Pure(collection::hasindex),
    "homedir" => Ambient(text::homedir),
    "indent" => Pure(text::indent),
    "index" => Pure(collection::index),
    "indexof" => Pure(collection::indexof),
    "int" => Pure(number::int),
    "join" => Pure(text::join),
    "jsondecode" => Pure(encoding::json_decode),
    "jsonencode" => Pure(encoding::json_encode),
    "keys" => Pure(collection::keys),
    "length" => Pure(collection::length),
    "lessthan" => Pure(number::less),
    "lessthanorequalto" => Pure(number::less_or_equal),
    "log" => Pure(number::log),
    "lookup" => Pure(collection::lookup),
    "lower" => Pure(text::lower),
    "max" => Pure(number::max),
    "md5" => Pure(digest::md5),
    "merge" => Pure(collection::merge),
    "min" => Pure(number::min),
    "modulo" => Pure(number::modulo),
    "multiply" => Pure(number::multiply),
    "negate" => Pure(number::negate),
    "not" => Pure(number::not),
    "notequal" => Pure(number::notequal),
    "or" => Pure(number::or),
    "parseint" => Pure(number::parse_int),
    "pow" => Pure(number::pow),
    "range" => Pure(collection::range),
    "regex" => Pure(pattern::regex),
    "regex_replace" => Pure(pattern::regex_replace),
    "regexall" => Pure(pattern::regex_all),
    "replace" => Pure(text::replace),
    "reverse" => Pure(text::reverse),
    "reverselist" => Pure(collection::reverselist),
    "sanitize" => Pure(text::sanitize),
    "sethaselement" => Pure(set::has_element),
    "setintersection" => Pure(set::intersection),
    "setproduct" => Pure(set::product),
    "setsubtract" => Pure(set::subtract),
    "setsymmetricdifference" => Pure(set::symmetric_difference),
    "setunion" => Pure(set::union),
    "semvercmp" => Pure(version::compare),
    "sha1" => Pure(digest::sha1),
    "sha256" => Pure(digest::sha256),
    "sha512" => Pure(digest::sha512),
    "signum" => Pure(number::signum),
    "slice" => Pure(collection::slice),
    "sort" => Pure(collection::sort),
    "split" => Pure(text::split),
    "strlen" => Pure(text::strlen),
    "substr" => Pure(text::substr),
    "subtract" => Pure(number::subtract),
    "timeadd" => Pure(time::add),
    "timestamp" => Ambient(time::timestamp),
    "title" => Pure(text::title),
    "trim" => Pure(text::trim),
    "trimprefix" => Pure(text::trim_prefix),
    "trimspace" => Pure(text::trim_space),
    "trimsuffix" => Pure(text::trim_suffix),
    "unixtimestampparse" => Pure(time::parse_unix),
    "upper" => Pure(text::upper),
    "urlencode" => Pure(encoding::url_encode),
    "uuidv4" => Ambient(digest::uuid_v4),
    "uuidv5" => Pure(digest::uuid_v5),
    "values" => Pure(collection::values),
    "zipmap" => Pure(collection::zipmap),
}

/// Returns exactly `N` arguments.
fn exactly<const N: usize>(args: &[Value]) -> Result<&[Value; N], Error> {
    args.try_into()
        .map_err(|_| Error::definition(format!("{N} arguments are required, not {}", args.len())))
}
