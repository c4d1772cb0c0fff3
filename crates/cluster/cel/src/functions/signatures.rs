//! Which functions there are and what they take: the type checker's table.

use crate::types::Type;
use std::collections::HashMap;
use std::sync::{Arc, LazyLock};

/// One overload.
#[derive(Debug)]
pub(crate) struct Signature {
    pub(crate) receiver: Option<Type>,
    pub(crate) args: Vec<Type>,
    pub(crate) result: Yield,
}

#[derive(Debug, Clone)]
pub(crate) enum Yield {
    Fixed(Type),
    /// What the receiver's elements are.
    Element,
    /// The receiver's own type.
    Receiver,
    /// What an optional holds; or the optional of the argument.
    Inner,
    OptionalOfArg,
}

/// `RECEIVER.name(ARGS)RESULT`, one a line. `list` is a list of anything.
const TABLE: &str = "
size(string)int
size(bytes)int
size(list)int
size(map)int
string.size()int
bytes.size()int
list.size()int
map.size()int
string.contains(string)bool
string.startsWith(string)bool
string.endsWith(string)bool
string.matches(string)bool
matches(string,string)bool
string.charAt(int)string
string.indexOf(string)int
string.indexOf(string,int)int
string.lastIndexOf(string)int
string.lastIndexOf(string,int)int
string.lowerAscii()string
string.upperAscii()string
string.replace(string,string)string
string.replace(string,string,int)string
string.split(string)strings
string.split(string,int)strings
string.substring(int)string
string.substring(int,int)string
string.trim()string
string.reverse()string
string.format(list)string
strings.quote(string)string
strings.join()string
strings.join(string)string
int(int)int
int(uint)int
int(double)int
int(string)int
int(timestamp)int
uint(int)uint
uint(uint)uint
uint(double)uint
uint(string)uint
double(int)double
double(uint)double
double(double)double
double(string)double
string(string)string
string(int)string
string(uint)string
string(double)string
string(bool)string
string(bytes)string
string(timestamp)string
string(duration)string
string(ip)string
string(cidr)string
bytes(bytes)bytes
bytes(string)bytes
bool(bool)bool
bool(string)bool
duration(string)duration
duration(duration)duration
timestamp(string)timestamp
timestamp(timestamp)timestamp
timestamp(int)timestamp
dyn(dyn)dyn
type(dyn)type
timestamp.getFullYear()int
timestamp.getFullYear(string)int
timestamp.getMonth()int
timestamp.getMonth(string)int
timestamp.getDate()int
timestamp.getDate(string)int
timestamp.getDayOfMonth()int
timestamp.getDayOfMonth(string)int
timestamp.getDayOfWeek()int
timestamp.getDayOfWeek(string)int
timestamp.getDayOfYear()int
timestamp.getDayOfYear(string)int
timestamp.getHours()int
timestamp.getHours(string)int
timestamp.getMinutes()int
timestamp.getMinutes(string)int
timestamp.getSeconds()int
timestamp.getSeconds(string)int
timestamp.getMilliseconds()int
timestamp.getMilliseconds(string)int
duration.getHours()int
duration.getMinutes()int
duration.getSeconds()int
duration.getMilliseconds()int
list.isSorted()bool
list.sum()element
list.min()element
list.max()element
list.indexOf(dyn)int
list.lastIndexOf(dyn)int
list.distinct()receiver
list.reverse()receiver
list.slice(int,int)receiver
list.sort()receiver
list.flatten()list
string.find(string)string
string.findAll(string)strings
string.findAll(string,int)strings
url(string)url
isURL(string)bool
url.getScheme()string
url.getHost()string
url.getHostname()string
url.getPort()string
url.getEscapedPath()string
url.getQuery()multimap
quantity(string)quantity
isQuantity(string)bool
quantity.isInteger()bool
quantity.asInteger()int
quantity.asApproximateFloat()double
quantity.sign()int
quantity.add(quantity)quantity
quantity.add(int)quantity
quantity.sub(quantity)quantity
quantity.sub(int)quantity
quantity.isLessThan(quantity)bool
quantity.isGreaterThan(quantity)bool
quantity.compareTo(quantity)int
ip(string)ip
isIP(string)bool
ip.isCanonical(string)bool
ip.family()int
ip.isUnspecified()bool
ip.isLoopback()bool
ip.isLinkLocalMulticast()bool
ip.isLinkLocalUnicast()bool
ip.isGlobalUnicast()bool
cidr(string)cidr
isCIDR(string)bool
cidr.containsIP(string)bool
cidr.containsIP(ip)bool
cidr.containsCIDR(string)bool
cidr.containsCIDR(cidr)bool
cidr.ip()ip
cidr.masked()cidr
cidr.prefixLength()int
semver(string)semver
semver(string,bool)semver
isSemver(string)bool
isSemver(string,bool)bool
semver.major()int
semver.minor()int
semver.patch()int
semver.compareTo(semver)int
semver.isLessThan(semver)bool
semver.isGreaterThan(semver)bool
format.named(string)optional_format
format.validate(string)optional_strings
jsonpatch.escapeKey(string)string
sets.contains(list,list)bool
sets.equivalent(list,list)bool
sets.intersects(list,list)bool
optional.of(dyn)optional_of_arg
optional.ofNonZeroValue(dyn)optional_of_arg
optional.none()optional
optional.hasValue()bool
optional.value()inner
optional.or(optional)receiver
optional.orValue(dyn)inner
authorizer.path(string)authorizer
authorizer.group(string)authorizer
authorizer.resource(string)authorizer
authorizer.subresource(string)authorizer
authorizer.namespace(string)authorizer
authorizer.name(string)authorizer
authorizer.serviceAccount(string,string)authorizer
authorizer.fieldSelector(string)authorizer
authorizer.labelSelector(string)authorizer
authorizer.check(string)decision
decision.allowed()bool
decision.reason()string
decision.errored()bool
decision.error()string
";

/// Names of `format.NAME()`.
pub(crate) const FORMATS: [&str; 14] = [
    "dns1123Label",
    "dns1123Subdomain",
    "dns1035Label",
    "qualifiedName",
    "dns1123LabelPrefix",
    "dns1123SubdomainPrefix",
    "dns1035LabelPrefix",
    "labelValue",
    "uri",
    "uuid",
    "byte",
    "date",
    "datetime",
    "duration",
];

fn named(word: &str) -> Type {
    match word {
        "bool" => Type::Bool,
        "int" => Type::Int,
        "uint" => Type::Uint,
        "double" => Type::Double,
        "string" => Type::string(),
        "bytes" => Type::Bytes(crate::types::REQUEST_BYTES - 2),
        "timestamp" => Type::Timestamp,
        "duration" => Type::Duration,
        "type" => Type::Type,
        "list" => Type::list(Type::Dyn),
        "strings" => Type::list(Type::string()),
        "map" => Type::map(Type::Dyn, Type::Dyn),
        "multimap" => Type::map(Type::string(), Type::list(Type::string())),
        "optional" => Type::optional(Type::Dyn),
        "optional_format" => Type::optional(Type::Opaque("format")),
        "optional_strings" => Type::optional(Type::list(Type::string())),
        "url" => Type::Opaque("url"),
        "quantity" => Type::Opaque("quantity"),
        "ip" => Type::Opaque("ip"),
        "cidr" => Type::Opaque("cidr"),
        "semver" => Type::Opaque("semver"),
        "format" => Type::Opaque("format"),
        "authorizer" => Type::Opaque("authorizer"),
        "decision" => Type::Opaque("decision"),
        _ => Type::Dyn,
    }
}

/// Names that stand for a name space when a function follows them.
const SPACES: [&str; 4] = ["sets", "optional", "strings", "jsonpatch"];

static FUNCTIONS: LazyLock<HashMap<String, Vec<Signature>>> = LazyLock::new(|| {
    let mut all: HashMap<String, Vec<Signature>> = HashMap::new();
    for line in TABLE.lines().filter(|line| !line.is_empty()) {
        let (head, rest) = line.split_once('(').unwrap_or((line, ""));
        let (args, result) = rest.split_once(')').unwrap_or((rest, "dyn"));
        let args: Vec<Type> = args.split(',').filter(|arg| !arg.is_empty()).map(named).collect();
        let result = match result {
            "element" => Yield::Element,
            "receiver" => Yield::Receiver,
            "inner" => Yield::Inner,
            "optional_of_arg" => Yield::OptionalOfArg,
            "dyn" if head == "dyn" => Yield::Fixed(Type::Dyn),
            word => Yield::Fixed(named(word)),
        };
        // `sets.contains`, `strings.quote`, `ip.isCanonical` are names; `strings.join` is a method of a list.
        let (space, method) = head.split_once('.').unwrap_or(("", head));
        let is_name = SPACES.contains(&space)
            && (space == "sets" || matches!(method, "of" | "none" | "ofNonZeroValue" | "quote" | "escapeKey"))
            || head == "ip.isCanonical"
            || head == "format.named";
        let (name, receiver) = match (space.is_empty() || is_name, head.split_once('.')) {
            (false, Some((receiver, method))) => (method.to_owned(), Some(named(receiver))),
            _ => (head.to_owned(), None),
        };
        all.entry(name).or_default().push(Signature { receiver, args, result });
    }
    for format in FORMATS {
        let made = Signature { receiver: None, args: Vec::new(), result: Yield::Fixed(Type::Opaque("format")) };
        all.entry(format!("format.{format}")).or_default().push(made);
    }
    all
});

pub(crate) fn overloads(name: &str) -> &'static [Signature] {
    FUNCTIONS.get(name).map_or(&[], Vec::as_slice)
}

impl Signature {
    pub(crate) fn takes(&self, receiver: Option<&Type>, args: &[Type]) -> bool {
        let receiver_fits = match (&self.receiver, receiver) {
            (None, None) => true,
            (Some(wanted), Some(found)) => {
                // An object is a map to the functions that take any map.
                found.fits(wanted) || matches!((found, wanted), (Type::Object(_), Type::Map(..)))
            }
            _ => false,
        };
        receiver_fits
            && args.len() == self.args.len()
            && args.iter().zip(&self.args).all(|(found, wanted)| {
                found.fits(wanted) || matches!((found, wanted), (Type::Object(_), Type::Map(..)))
            })
    }

    pub(crate) fn yields(&self, receiver: Option<&Type>, args: &[Type]) -> Type {
        match (&self.result, receiver) {
            (Yield::Fixed(kind), _) => kind.clone(),
            (Yield::Element, Some(Type::List(element, _))) => element.as_ref().clone(),
            (Yield::Inner, Some(Type::Optional(inner))) => inner.as_ref().clone(),
            (Yield::Receiver, Some(kind)) => kind.clone(),
            (Yield::OptionalOfArg, _) => Type::Optional(Arc::new(args.first().cloned().unwrap_or(Type::Dyn))),
            _ => Type::Dyn,
        }
    }
}
