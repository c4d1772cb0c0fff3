use super::*;
use proptest::prelude::*;
use serde_json::{Value as Json, json};

fn environment() -> Environment {
    Environment::default().with("self", Type::Dyn)
}

/// The result over `self`, as JSON; errors as text.
fn run(text: &str, this: &Json) -> Result<Json, String> {
    let program = Program::compile(text, &environment()).map_err(|error| error.to_string())?;
    let variables = BTreeMap::from([("self".to_owned(), Value::of_json(this, &Type::Dyn))]);
    let found = program.eval(&variables, &mut Budget::new(1_000_000), None).map_err(|error| error.to_string())?;
    found.to_json().ok_or_else(|| found.type_name().to_owned())
}

#[track_caller]
fn holds(text: &str, this: &Json) {
    assert_eq!(run(text, this), Ok(Json::Bool(true)), "{text}");
}

#[test]
fn operators_and_macros_do_what_cel_says() {
    let this = json!({"a": 1, "list": [1, 2, 3], "map": {"x": "1", "y": "2"}, "text": "hello"});
    for text in [
        "1 + 2 * 3 == 7 && (1 + 2) * 3 == 9",
        "-7 / 2 == -3 && -7 % 2 == -1",
        "self.a == 1 && self['a'] == 1",
        "has(self.a) && !has(self.b)",
        "self.list.all(x, x > 0) && self.list.exists(x, x == 2) && self.list.exists_one(x, x > 2)",
        "self.list.map(x, x * 2) == [2, 4, 6] && self.list.map(x, x > 1, x * 2) == [4, 6]",
        "self.list.filter(x, x != 2) == [1, 3]",
        "self.map.all(k, self.map[k] != '')",
        "self.map.transformMap(k, v, int(v) + 1) == {'x': 2, 'y': 3}",
        "self.list.transformList(i, v, i * 10 + v) == [1, 12, 23]",
        "self.list.all(i, v, v == i + 1)",
        "cel.bind(x, self.list.size(), x + x) == 6",
        "true || 1 / 0 == 1",
        "!(false && 1 / 0 == 1)",
        "(self.a > 0 ? 'yes' : 'no') == 'yes'",
        "'x' in self.map && 2 in self.list && !('z' in self.map)",
        "self.?b.orValue(5) == 5 && self.?a.value() == 1 && self[?'a'].hasValue()",
        "optional.none().or(optional.of(1)).value() == 1",
        "[?self.?b, ?self.?a] == [1]",
        "type(1) == int && type('') == string && type([]) == list",
        "dyn(1.0) == 1 && 2u > 1u && dyn(1) < 1.5",
        "b'abc' == bytes('abc') && r'a\\d' == 'a\\\\d'",
        "{1: 'a'}[1] == 'a' && size({}) == 0",
    ] {
        holds(text, &this);
    }
}

#[test]
fn the_libraries_of_kubernetes_are_there() {
    let this = json!({"s": ["b", "a"]});
    for text in [
        "'Hello'.lowerAscii() == 'hello' && 'a,b,c'.split(',') == ['a', 'b', 'c'] && ['a', 'b'].join('-') == 'a-b'",
        "'hello'.substring(1, 3) == 'el' && 'hello'.indexOf('l') == 2 && 'hello'.lastIndexOf('l') == 3",
        "'hello'.replace('l', 'L', 1) == 'heLlo' && 'hello'.charAt(1) == 'e' && ' a '.trim() == 'a'",
        "'%s has %d (%.2f)'.format(['x', 3, 1.5]) == 'x has 3 (1.50)'",
        "'abc123'.matches('^[a-z]+[0-9]+$') && 'abc 123'.find('[0-9]+') == '123' && '1 2 3'.findAll('[0-9]', 2) == ['1', '2']",
        "!self.s.isSorted() && [1, 2, 3].sum() == 6 && [3, 1].min() == 1 && [3, 1].max() == 3 && ['a', 'b'].indexOf('b') == 1",
        "quantity('1.5Gi').isGreaterThan(quantity('1G')) && quantity('100m').add(quantity('200m')) == quantity('300m') && !isQuantity('x')",
        "quantity('50k').asInteger() == 50000 && quantity('-1').sign() == -1 && quantity('1').compareTo(quantity('2')) == -1",
        "url('https://example.com:80/a?b=c').getHost() == 'example.com:80' && url('https://[::1]:80/a').getHostname() == '::1' && !isURL('a b')",
        "url('https://example.com/a?k=1&k=2').getQuery()['k'] == ['1', '2']",
        "ip('10.0.0.1').family() == 4 && isIP('::1') && !isIP('10.0.0.256') && ip('127.0.0.1').isLoopback() && ip.isCanonical('10.0.0.1')",
        "cidr('10.0.0.0/8').containsIP('10.1.2.3') && cidr('10.0.0.0/8').containsCIDR('10.1.0.0/16') && cidr('10.1.0.0/8').masked() == cidr('10.0.0.0/8') && cidr('::/0').prefixLength() == 0",
        "semver('1.2.3').isLessThan(semver('1.10.0')) && semver('1.0.0-alpha').isLessThan(semver('1.0.0')) && isSemver('v1.2', true) && !isSemver('v1.2')",
        "format.dns1123Label().validate('abc') == optional.none() && format.named('dns1123Label').value().validate('A_B').hasValue()",
        "duration('1h30m').getMinutes() == 90 && timestamp('2024-01-02T03:04:05Z') + duration('1h') == timestamp('2024-01-02T04:04:05Z')",
        "timestamp('2024-01-02T03:04:05Z').getFullYear() == 2024 && timestamp('2024-01-02T03:04:05Z').getDayOfWeek() == 2",
        "sets.contains([1, 2, 3], [2]) && sets.equivalent([1, 1], [1]) && !sets.intersects([1], [2])",
    ] {
        holds(text, &this);
    }
}

#[test]
fn what_does_not_check_is_refused_with_its_place() {
    let schema = json!({"type": "object", "properties": {"replicas": {"type": "integer"}, "name": {"type": "string"},
        "tags": {"type": "array", "items": {"type": "string"}}, "x-y": {"type": "string"}}});
    let schema = kube_types::custom::Structural::parse(&schema).expect("structural");
    let environment = Environment::default().with("self", Type::of_schema(&schema, false));
    for (text, words) in [
        ("self.nosuch == 1", "ERROR: <input>:1:5: undefined field 'nosuch'\n | self.nosuch == 1\n | ....^"),
        ("other", "ERROR: <input>:1:1: undeclared reference to 'other' (in container '')\n | other\n | ^"),
        ("self.replicas == 'a'", "ERROR: <input>:1:15: found no matching overload for '_==_' applied to '(int, string)'\n | self.replicas == 'a'\n | ..............^"),
        ("self.name.startsWith(1)", "ERROR: <input>:1:10: found no matching overload for 'startsWith' applied to 'string.(int)'\n | self.name.startsWith(1)\n | .........^"),
        ("self.name.nosuch()", "ERROR: <input>:1:10: undeclared reference to 'nosuch' (in container '')\n | self.name.nosuch()\n | .........^"),
        ("self.replicas.all(x, true)", "ERROR: <input>:1:5: expression of type 'int' cannot be range of a comprehension (must be list, map, or dynamic)\n | self.replicas.all(x, true)\n | ....^"),
        ("1 +", "ERROR: <input>:1:4: Syntax error: mismatched input '<EOF>' expecting {'[', '{', '(', '.', '-', '!', 'true', 'false', 'null', NUM_FLOAT, NUM_INT, NUM_UINT, STRING, BYTES, IDENTIFIER}\n | 1 +\n | ...^"),
    ] {
        let error = Program::compile(text, &environment).expect_err(text);
        assert_eq!(error.0, words, "{text}");
    }
    let good = Program::compile("self.x__dash__y == '' && self.tags.all(t, t.size() < 3)", &environment).expect("checks");
    assert!(matches!(good.result, Type::Bool));
}

#[test]
fn costs_are_estimated_by_the_sizes_that_a_schema_allows() {
    let bounded = |max: Json| {
        let mut tags = json!({"type": "array", "items": {"type": "string", "maxLength": 10}});
        if !max.is_null() {
            tags["maxItems"] = max;
        }
        let schema = json!({"type": "object", "properties": {"tags": tags}});
        let schema = kube_types::custom::Structural::parse(&schema).expect("structural");
        let environment = Environment::default().with("self", Type::of_schema(&schema, false));
        let text = "self.tags.all(a, self.tags.all(b, a == b))";
        Program::compile(text, &environment).expect("checks").estimate.max
    };
    assert!(bounded(json!(10)) < 10_000, "{}", bounded(json!(10)));
    assert!(bounded(Json::Null) > 1_000_000_000);
}

/// Rules of the kind that widely used definitions ship (listeners of gateways, path matches, time-outs).
#[test]
fn rules_as_they_are_written_in_the_wild_check_and_are_affordable() {
    let listener = json!({"type": "object", "required": ["name", "port", "protocol"], "properties": {
        "name": {"type": "string", "maxLength": 253}, "hostname": {"type": "string", "maxLength": 253},
        "port": {"type": "integer", "format": "int32"}, "protocol": {"type": "string", "maxLength": 255},
        "tls": {"type": "object", "properties": {"mode": {"type": "string", "enum": ["Terminate", "Passthrough"]},
            "certificateRefs": {"type": "array", "maxItems": 64, "items": {"type": "object", "properties": {"name": {"type": "string", "maxLength": 253}}}},
            "options": {"type": "object", "maxProperties": 16, "additionalProperties": {"type": "string", "maxLength": 4096}}}},
        "timeouts": {"type": "object", "properties": {"request": {"type": "string", "pattern": "^([0-9]{1,5}(h|m|s|ms)){1,4}$"}, "backendRequest": {"type": "string"}}},
        "path": {"type": "object", "properties": {"type": {"type": "string", "enum": ["Exact", "PathPrefix"]}, "value": {"type": "string", "maxLength": 1024}}},
    }});
    let schema = json!({"type": "array", "maxItems": 64, "items": listener});
    let schema = kube_types::custom::Structural::parse(&schema).expect("structural");
    let environment = Environment::default().with("self", Type::of_schema(&schema, false)).with("oldSelf", Type::optional(Type::of_schema(&schema, false)));
    let good: Json = json!([
        {"name": "a", "port": 80, "protocol": "HTTP", "path": {"type": "Exact", "value": "/x"}, "timeouts": {"request": "2s", "backendRequest": "1s"}},
        {"name": "b", "port": 443, "protocol": "HTTPS", "hostname": "example.com", "tls": {"mode": "Terminate", "certificateRefs": [{"name": "c"}]}},
    ]);
    for rule in [
        "self.all(l, l.protocol in ['HTTP', 'TCP', 'UDP'] ? !has(l.tls) : true)",
        "self.all(l, (l.protocol == 'HTTPS' && has(l.tls)) ? (l.tls.mode == '' || l.tls.mode == 'Terminate') : true)",
        "self.all(l, l.protocol in ['TCP', 'UDP'] ? (!has(l.hostname) || l.hostname == '') : true)",
        "self.all(l1, self.exists_one(l2, l1.name == l2.name))",
        "self.all(l1, self.exists_one(l2, l1.port == l2.port && l1.protocol == l2.protocol && (has(l1.hostname) && has(l2.hostname) ? l1.hostname == l2.hostname : !has(l1.hostname) && !has(l2.hostname))))",
        "self.all(l, has(l.tls) && l.tls.mode == 'Terminate' ? size(l.tls.certificateRefs) > 0 || size(l.tls.options) > 0 : true)",
        "self.all(l, !has(l.path) || l.path.type != 'Exact' || (l.path.value.startsWith('/') && !l.path.value.contains('//') && l.path.value.matches(r\"\"\"^(?:[-A-Za-z0-9/._~!$&'()*+,;=:@]|[%][0-9a-fA-F]{2})+$\"\"\")))",
        "self.all(l, !(has(l.timeouts) && has(l.timeouts.request) && has(l.timeouts.backendRequest) && duration(l.timeouts.request) != duration('0s') && duration(l.timeouts.backendRequest) > duration(l.timeouts.request)))",
        "oldSelf.hasValue() || self.size() > 0",
        "self.filter(l, l.protocol == 'HTTP').size() <= 1 && self.map(l, l.port).isSorted()",
    ] {
        let program = Program::compile(rule, &environment).unwrap_or_else(|error| panic!("{rule}: {error}"));
        assert!(program.estimate.max < 10_000_000, "{rule}: {}", program.estimate.max);
        let variables = BTreeMap::from([
            ("self".to_owned(), Value::of_json(&good, &Type::of_schema(&schema, false))),
            ("oldSelf".to_owned(), Value::Optional(None)),
        ]);
        let found = program.eval(&variables, &mut Budget::new(1_000_000), None);
        assert!(matches!(found, Ok(Value::Bool(true))), "{rule}: {found:?}");
    }
}

#[test]
fn who_runs_out_of_budget_is_stopped() {
    let list: Vec<u32> = (0..1000).collect();
    let this = json!({"list": list});
    let error = run("self.list.all(a, self.list.all(b, self.list.all(c, true)))", &this).expect_err("too much");
    assert_eq!(error, "operation cancelled: actual cost limit exceeded");
    let error = run("self.list.exists(a, self.list.all(b, self.list.all(c, true) || true)) || true", &this).expect_err("no way round");
    assert!(error.contains("cost limit exceeded"));
}

#[test]
fn hostile_expressions_end_in_an_error() {
    let deep = format!("{}1{}", "(".repeat(10_000), ")".repeat(10_000));
    let chain = vec!["1"; 100_000].join("+");
    let dots = format!("self{}", ".a".repeat(100_000));
    let nots = "!".repeat(100_000) + "true";
    for text in [deep.as_str(), &chain, &dots, &nots, "'\\x", "\"", "[", "{", "0x", "a.b(", "99999999999999999999"] {
        assert!(Program::compile(text, &environment()).is_err());
    }
    assert!(run("9223372036854775807 + 1", &Json::Null).is_err());
    assert!(run("[1][5]", &Json::Null).is_err());
    assert_eq!(run("-9223372036854775808 < 0", &Json::Null), Ok(json!(true)));
}

proptest! {
    #[test]
    fn no_text_makes_the_parser_or_the_evaluator_panic(text in r#"[a-z0-9 .()\[\]{}'"+*/!&|<>=?:,\\-]{0,60}"#) {
        let _ = run(&text, &json!({"a": [1, {"b": "c"}]}));
    }

    #[test]
    fn integers_compute_as_integers_do(a in -1000i64..1000, b in 1i64..1000) {
        let text = format!("{a} + {b} == {} && {a} / {b} == {} && {a} % {b} == {}", a + b, a / b, a % b);
        prop_assert_eq!(run(&text, &Json::Null), Ok(json!(true)));
    }
}
