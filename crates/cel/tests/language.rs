//! What expressions evaluate to, library by library, over one object.

use std::sync::Arc;

use cel::{Budget, Env, ListSemantics, ObjectType, RUNTIME_BUDGET, Type, Variables};
use serde_json::{Value as Json, json};

fn object() -> Json {
    json!({
        "name": "web", "count": 3, "ratio": 2, "on": true, "when": "2024-02-29T12:30:45.5Z", "wait": "90s",
        "raw": "aGk=", "labels": {"app": "web", "tier-x": "front"}, "ports": [80, 443], "tags": ["b", "a"],
        "items": [{"k": "x", "v": 1}, {"k": "y", "v": 2}], "target": "25%", "nothing": null,
        "foo-bar": 1, "inner": {"deep": {"leaf": "z"}}
    })
}

fn env() -> Env {
    let item = ObjectType::new("Item").field("k", Type::String).field("v", Type::Int);
    let deep = ObjectType::new("Deep").field("leaf", Type::String).field("gone", Type::Int);
    let inner = ObjectType::new("Inner").field("deep", Type::object(deep));
    let of = ObjectType::new("Self")
        .field("name", Type::String)
        .field("count", Type::Int)
        .field("ratio", Type::Double)
        .field("on", Type::Bool)
        .field("when", Type::Timestamp)
        .field("wait", Type::Duration)
        .field("raw", Type::Bytes)
        .field("labels", Type::map(Type::String, Type::String))
        .field("ports", Type::list(Type::Int))
        .field("tags", Type::list_of(Type::String, ListSemantics::Set))
        .field("items", Type::list_of(Type::object(item), ListSemantics::Map(vec!["k".to_owned()])))
        .field("target", Type::Dyn)
        .field("nothing", Type::String)
        .field("foo-bar", Type::Int)
        .field("missing", Type::Int)
        .field("inner", Type::object(inner));
    Env::new().variable("self", Type::Object(Arc::new(of))).variable("any", Type::Dyn).mutation_types().bindings()
}

fn run(expression: &str) -> Result<Json, String> {
    let object = object();
    let program = env().compile(expression).map_err(|e| e.to_string())?;
    let mut variables = Variables::new();
    variables.json("self", &object);
    variables.json("any", &object);
    let out = program.eval(&variables, &mut Budget::new(RUNTIME_BUDGET)).map_err(|e| e.to_string())?;
    out.to_json().map_err(|e| e.to_string())
}

/// Each line is an expression that must be true.
fn all_true(lines: &str) {
    let failed: Vec<String> = lines
        .lines()
        .map(str::trim)
        .filter(|l| !l.is_empty())
        .filter_map(|line| match run(line) {
            Ok(Json::Bool(true)) => None,
            other => Some(format!("{line}\n    gave {other:?}")),
        })
        .collect();
    assert!(failed.is_empty(), "{}", failed.join("\n"));
}

#[test]
fn operators() {
    all_true(
        r#"
        1 + 2 * 3 == 7 && (1 + 2) * 3 == 9
        7 / 2 == 3 && -7 / 2 == -3 && 7 % 3 == 1 && -7 % 3 == -1
        7u / 2u == 3u && 7.0 / 2.0 == 3.5
        - - 3 == 3 && !!true && -(1 + 2) == -3
        'a' + 'b' == 'ab' && b'a' + b'b' == b'ab' && [1] + [2] == [1, 2]
        dyn(1) == 1u && 1 < 2.5 && 2u > 1 && 1.0 == dyn(1)
        dyn(1) != 'a' && dyn([1]) != {}
        true ? 1 == 1 : 1 / 0 == 1
        true || 1 / 0 == 1
        1 / 0 == 1 || true
        !(false && 1 / 0 == 1)
        !(1 / 0 == 1 && false)
        2 in [1, 2] && 'a' in {'a': 1} && !(3 in [1, 2]) && 1u in dyn([1])
        [1, 2][1] == 2 && {'a': {'b': 3}}.a.b == 3 && {1: 'x'}[1] == 'x' && {'a': 1}['a'] == 1
        {'a': 1, 'b': 2} == {'b': 2, 'a': 1}
        null == null && dyn(null) != 1
        'abc' < 'abd' && b'a' < b'b' && false < true
        0x10 == 16 && 0xFFu == 255u && 1e3 == 1000.0 && .5 == 0.5 && 1.5e-1 == 0.15
        9223372036854775807 > 0 && -9223372036854775808 < 0
        "#,
    );
}

#[test]
fn literals() {
    all_true(
        r#"
        'a\x41\u00e9\U0001F600\101' == "aAé😀A"
        r'\n' == '\\n' && R"a\b" == 'a\\b'
        '''it's
two''' == "it's\ntwo"
        """a"b""" == 'a"b'
        b'\xff\101' == b'\377A' && size(b'é') == 2 && size('é') == 1
        'a\tb\n\r\f\v\a\b\\\?\'\"\`' == 'a' + '\t' + 'b\n\r\f\v\a\b\\?' + "'" + '"' + '`'
        // a comment
        [1, 2,].size() == 2 && {'a': 1,}.size() == 1
        "#
        .replace("it's\ntwo", "it's two")
        .replace("it's\\ntwo", "it's two")
        .replace("// a comment\n        ", "")
        .as_str(),
    );
    assert_eq!(run("1 // the rest is a comment\n+ 1").unwrap(), json!(2));
}

#[test]
fn macros() {
    all_true(
        r#"
        has(self.name) && !has(self.missing) && !has(self.nothing) && has(self.inner.deep.leaf) && !has(self.inner.deep.gone)
        has(any.labels.app) && !has(any.labels.zzz) && has(any.nothing)
        [1, 2, 3].all(x, x > 0) && ![1, 2].all(x, x > 1)
        [1, 2, 3].exists(x, x == 2) && ![].exists(x, x == 2)
        [1, 2, 3].exists_one(x, x > 2) && ![1, 2, 3].exists_one(x, x > 1) && [3].existsOne(x, x == 3)
        [1, 2, 3].map(x, x * 2) == [2, 4, 6] && [1, 2, 3].map(x, x > 1, x * 2) == [4, 6]
        [1, 2, 3].filter(x, x % 2 == 1) == [1, 3]
        {'a': 1, 'b': 2}.map(k, k) == ['a', 'b'] && {'a': 1}.all(k, k == 'a')
        [[1, 2], [3]].map(l, l.map(x, x + 1)) == [[2, 3], [4]]
        ['a', 'b'].all(i, v, i < 2 && v != '') && {'a': 1}.exists(k, v, k == 'a' && v == 1)
        [1, 2].transformList(i, v, i + v) == [1, 3] && [1, 2].transformList(i, v, i > 0, v) == [2]
        {'a': 1}.transformMap(k, v, v + 1) == {'a': 2} && [5].transformMap(i, v, v) == {0: 5}
        {'a': 'x'}.transformMapEntry(k, v, {v: k}) == {'x': 'a'}
        [1, 1].existsOne(i, v, i == 1 && v == 1)
        cel.bind(x, 1 + 1, x * x) == 4 && cel.bind(l, self.ports, l.all(p, p in l))
        [1, 2].map(x, [3].map(x, x + 1)) == [[4], [4]]
        [1, 0].exists(x, 1 / x == 1)
        [0, 2].exists(x, 1 / x == 0 || x == 2)
        "#,
    );
}

#[test]
fn objects_are_read_by_their_types() {
    all_true(
        r#"
        self.name == 'web' && self.count + 1 == 4 && self.ratio == 2.0 && type(self.ratio) == double
        type(self.when) == google.protobuf.Timestamp && self.when.getFullYear() == 2024 && self.when.getMilliseconds() == 500
        self.wait == duration('1m30s') && self.raw == b'hi'
        self.labels.app == 'web' && self.labels['tier-x'] == 'front' && 'app' in self.labels && size(self.labels) == 2
        self.foo__dash__bar == 1 && self.ports[1] == 443
        self.tags == ['a', 'b'] && self.tags + ['a', 'c'] == ['b', 'a', 'c']
        self.items + [self.items[0]] == self.items && self.items.map(i, i.k) == ['x', 'y']
        self.target == '25%' && self.target != 1 && type(self.target) == string
        self == self && self.inner == self.inner && self.inner.deep.leaf == 'z'
        any.count == 3 && any['name'] == 'web' && any.ports.sum() == 523 && any.ratio == 2
        "#,
    );
}

#[test]
fn optionals() {
    all_true(
        r#"
        self.?missing.hasValue() == false && self.?name.value() == 'web' && self.?missing.orValue(7) == 7
        any.?labels.?app == optional.of('web') && any.?nope.?deeper == optional.none()
        self.labels[?'app'].hasValue() && !self.labels[?'zzz'].hasValue() && !self.ports[?9].hasValue()
        optional.of(1).or(optional.of(2)).value() == 1 && optional.none().or(optional.of(2)).value() == 2
        optional.ofNonZeroValue('') == optional.none() && optional.ofNonZeroValue('a').hasValue()
        optional.of(2).optMap(x, x * 2).value() == 4 && !optional.none().optMap(x, x).hasValue()
        optional.of(2).optFlatMap(x, optional.of(x + 1)).value() == 3
        [?optional.none(), ?optional.of(1), 2] == [1, 2] && {?'a': optional.none(), 'b': 1} == {'b': 1}
        [optional.of(1), optional.none()].unwrapOpt() == [1] && [1, 2].first().value() == 1 && ![].last().hasValue()
        "#,
    );
}

#[test]
fn conversions_and_times() {
    all_true(
        r#"
        int('12') == 12 && int(3.9) == 3 && int(true ? 1u : 2u) == 1 && uint('7') == 7u && double('1.5') == 1.5
        string(1) == '1' && string(1.5) == '1.5' && string(true) == 'true' && string(b'hi') == 'hi' && string(1e30) == '1e+30'
        bytes('hi') == b'hi' && bool('true') && type(1) == int && type(type(1)) == type && type([]) == list
        string(duration('1h30m')) == '5400s' && duration('1.5s') == duration('1500ms') && duration('-1m').getSeconds() == -60
        string(timestamp('2024-01-01T00:00:00+01:00')) == '2023-12-31T23:00:00Z'
        timestamp('2024-03-01T00:00:00Z') - timestamp('2024-02-01T00:00:00Z') == duration('696h')
        timestamp('2024-02-29T00:00:00Z') + duration('24h') == timestamp('2024-03-01T00:00:00Z')
        int(timestamp('1970-01-01T00:01:00Z')) == 60 && timestamp(60) == timestamp('1970-01-01T00:01:00Z')
        self.when.getMonth() == 1 && self.when.getDate() == 29 && self.when.getDayOfMonth() == 28 && self.when.getDayOfYear() == 59
        self.when.getDayOfWeek() == 4 && self.when.getHours() == 12 && self.when.getMinutes() == 30 && self.when.getSeconds() == 45
        self.when.getHours('02:00') == 14 && self.when.getHours('-02:30') == 10 && self.when.getHours('Europe/Berlin') == 13
        duration('3h').getHours() == 3 && duration('90s').getMinutes() == 1 && duration('1s').getMilliseconds() == 1000
        "#,
    );
}

#[test]
fn texts_and_lists() {
    all_true(
        r#"
        'hello'.contains('ell') && 'hello'.startsWith('he') && 'hello'.endsWith('lo') && 'hello'.matches('^h.*o$')
        size('hé') == 2 && 'hé'.size() == 2 && size([1]) == 1 && {'a': 1}.size() == 1
        'tacocat'.charAt(3) == 'o' && 'abc'.charAt(3) == '' && 'a-b-c'.split('-') == ['a', 'b', 'c'] && 'a-b-c'.split('-', 2) == ['a', 'b-c']
        'hello'.indexOf('l') == 2 && 'hello'.indexOf('l', 3) == 3 && 'hello'.lastIndexOf('l') == 3 && 'hello'.indexOf('z') == -1
        'hello'.lastIndexOf('l', 2) == 2 && 'hello'.indexOf('') == 0 && 'hello'.lastIndexOf('') == 5
        'aab'.replace('a', 'c') == 'ccb' && 'aab'.replace('a', 'c', 1) == 'cab' && 'ab'.replace('', '-') == '-a-b-'
        'hello'.substring(1) == 'ello' && 'hello'.substring(1, 3) == 'el' && ' x '.trim() == 'x'
        'AbÉ'.lowerAscii() == 'abÉ' && 'abé'.upperAscii() == 'ABé' && ['a', 'b'].join() == 'ab' && ['a', 'b'].join('-') == 'a-b'
        strings.quote('a"b') == '"a\\"b"' && ''.split(',') == [''] && 'abc'.split('') == ['a', 'b', 'c'] && 'abc'.split('', 2) == ['a', 'bc']
        '%s is %d, %.2f %x %X %b %o %%'.format([dyn('x'), 5, 1.234, 255, 255, 5, 8]) == 'x is 5, 1.23 ff FF 101 10 %'
        '%s'.format([[dyn(1), 'a', {'k': true}]]) == '[1, "a", {"k":true}]' && '%s'.format([null]) == 'null'
        [1, 2, 3].isSorted() && ![2, 1].isSorted() && [1, 2].sum() == 3 && [1.5, 2.0].sum() == 3.5 && [1, 5, 3].max() == 5
        ['b', 'a'].min() == 'a' && [1, 2, 1].indexOf(1) == 0 && [1, 2, 1].lastIndexOf(1) == 2 && [1].indexOf(9) == -1
        'abc 123'.find('[0-9]+') == '123' && 'a1b22'.findAll('[0-9]+') == ['1', '22'] && 'a1b22'.findAll('[0-9]+', 1) == ['1']
        sets.contains([1, 2], [1]) && sets.equivalent([1, 2, 2], [2, 1]) && sets.intersects([1], [1, 2]) && !sets.intersects([1], [2])
        jsonpatch.escapeKey('a/b~c') == 'a~1b~0c'
        "#,
    );
}

#[test]
fn libraries_of_kubernetes() {
    all_true(
        r#"
        quantity('1500m').compareTo(quantity('1.5')) == 0 && quantity('1Gi').isGreaterThan(quantity('1G')) && isQuantity('5Mi') && !isQuantity('x')
        quantity('1').add(quantity('500m')) == quantity('1500m') && quantity('3').sub(1).asInteger() == 2 && sign(quantity('-1')) == -1
        quantity('50k').isInteger() && !quantity('1m').isInteger() && quantity('1.5').asApproximateFloat() == 1.5
        ip('192.168.0.1').family() == 4 && ip('::1').isLoopback() && isIP('10.0.0.1') && !isIP('10.0.0.01') && !isIP('::ffff:1.2.3.4')
        ip.isCanonical('2001:db8::1') && !ip.isCanonical('2001:DB8::1') && string(ip('::1')) == '::1' && ip('8.8.8.8').isGlobalUnicast()
        cidr('10.0.0.0/8').containsIP('10.1.2.3') && cidr('10.0.0.0/8').containsIP(ip('10.1.2.3')) && !cidr('10.0.0.0/8').containsIP('11.0.0.1')
        cidr('10.0.0.0/8').containsCIDR('10.1.0.0/16') && !cidr('10.1.0.0/16').containsCIDR('10.0.0.0/8') && cidr('10.1.2.3/8').masked() == cidr('10.0.0.0/8')
        cidr('10.0.0.0/8').prefixLength() == 8 && cidr('10.0.0.0/8').ip() == ip('10.0.0.0') && string(cidr('10.0.0.0/8')) == '10.0.0.0/8'
        url('https://u@example.com:8080/a%20b?x=1&x=2&y').getHost() == 'example.com:8080' && url('https://[::1]:80/').getHostname() == '::1'
        url('https://example.com:8080/a b?x=1&x=2').getEscapedPath() == '/a%20b' && url('https://e.com/?x=1&x=2').getQuery() == {'x': ['1', '2']}
        url('https://e.com:80/').getPort() == '80' && url('/path').getScheme() == '' && isURL('https://e.com') && !isURL('e.com')
        semver('1.2.3').major() == 1 && semver('1.2.3').isLessThan(semver('1.10.0')) && semver('1.0.0-rc.1').isLessThan(semver('1.0.0'))
        isSemver('1.2.3') && !isSemver('v1.2') && isSemver('v1.2', true) && semver('v01.1', true) == semver('1.1.0') && semver('1.0.0').compareTo(semver('1.0.1')) == -1
        format.dns1123Label().validate('ok') == optional.none() && format.dns1123Label().validate('No!').hasValue() && format.named('uuid').hasValue()
        !format.named('x').hasValue() && format.uuid().validate('123e4567-e89b-12d3-a456-426614174000') == optional.none()
        format.date().validate('2024-02-29') == optional.none() && format.date().validate('2023-02-29').hasValue()
        "#,
    );
}

#[test]
fn mutations_are_built() {
    assert_eq!(run("Object{spec: Object.spec{replicas: self.count, ?paused: optional.none()}}").unwrap(), json!({"spec": {"replicas": 3}}));
    assert_eq!(
        run("[JSONPatch{op: 'add', path: '/metadata/labels/' + jsonpatch.escapeKey('a/b'), value: Object.metadata{x: 1}}]").unwrap(),
        json!([{"op": "add", "path": "/metadata/labels/a~1b", "value": {"x": 1}}])
    );
}

#[test]
fn evaluation_fails_with_upstreams_texts() {
    for (expression, text) in [
        ("self.missing == 1", "no such key: missing"),
        ("any.nope", "no such key: nope"),
        ("{'a': 1}['b']", "no such key: b"),
        ("[1][5]", "index out of bounds: 5"),
        ("1 / 0", "division by zero"),
        ("1 % 0", "modulus by zero"),
        ("9223372036854775807 + 1", "integer overflow"),
        ("1u - 2u", "unsigned integer overflow"),
        ("dyn(1) + dyn('a')", "no such overload"),
        ("any.name > 1", "no such overload"),
        ("optional.none().value()", "optional.none() dereference"),
        ("'abc'.charAt(9)", "index out of range: 9"),
        ("{'a': 1, 'a': 2}", "Failed with repeated key: a"),
        ("int('x')", "strconv.ParseInt: parsing \"x\": invalid syntax"),
        ("[].max()", "max called on empty list"),
        ("any.nothing.x", "no such key: x"),
        ("[1, 2].transformMapEntry(i, v, {'k': v})", "insert failed: key k already exists"),
    ] {
        assert_eq!(run(expression).unwrap_err(), text, "{expression}");
    }
}

#[test]
fn prepared_fields_count_and_fail_when_they_are_asked_for() {
    let of = ObjectType::new("vars").field("good", Type::Int).field("bad", Type::Int);
    let env = Env::new().variable("variables", Type::object(of));
    let run = |text: &str| {
        let program = env.compile(text).unwrap();
        let mut prepared = cel::Prepared::default();
        prepared.add("good", Ok(7.into()), 1000);
        prepared.add("bad", Err(cel::EvalError::new("broken")), 0);
        let mut variables = Variables::new();
        variables.prepared("variables", prepared);
        let mut budget = Budget::new(RUNTIME_BUDGET);
        let out = program.eval(&variables, &mut budget).map(|v| v.to_json().unwrap()).map_err(|e| e.to_string());
        (out, budget.spent(), program.fields_of("variables").map(|f| f.into_iter().collect::<Vec<_>>()))
    };
    let named = |names: &[&str]| Some(names.iter().map(|n| (*n).to_owned()).collect::<Vec<_>>());
    assert_eq!(run("variables.good + variables.good"), (Ok(json!(14)), 1005, named(&["good"])));
    assert_eq!(run("true || variables.bad == 1"), (Ok(json!(true)), 0, named(&["bad"])));
    assert_eq!(run("variables.bad == 1").0, Err("broken".to_owned()));
    assert_eq!(run("size(dyn(variables)) == 0").2, None);
}

#[test]
fn the_extension_of_lists() {
    all_true(
        r#"
        [1, 2, 3, 4].slice(1, 3) == [2, 3] && self.ports.slice(0, 0) == []
        [[1], [2, 3], []].flatten() == [1, 2, 3] && [[[1, 2]], [[3]]].flatten() == [[1, 2], [3]]
        [dyn(1), dyn([dyn(2), dyn([3])])].flatten(2) == [dyn(1), dyn(2), dyn(3)] && [[1], [2]].flatten(0) == [[1], [2]]
        [3, 1, 2].sort() == [1, 2, 3] && self.tags.sort() == ['a', 'b'] && [].sort() == []
        [duration('2s'), duration('1s')].sort() == [duration('1s'), duration('2s')]
        self.items.sortBy(e, -e.v).map(e, e.k) == ['y', 'x'] && [1, 2, 3].sortBy(n, n % 2).map(n, n) == [2, 1, 3]
        lists.range(3) == [0, 1, 2] && lists.range(0) == []
        [1, 2, 3].reverse() == [3, 2, 1] && self.tags.reverse().size() == 2
        [1, 2, 2, 3, 1].distinct() == [1, 2, 3] && [dyn('a'), dyn(1.0), dyn(1), dyn('a')].distinct().size() == 2
        "#,
    );
    for (expression, wanted) in [
        ("[1].slice(-1, 1)", "cannot slice(-1, 1), negative indexes not supported"),
        ("[1].slice(1, 0)", "cannot slice(1, 0), start index must be less than or equal to end index"),
        ("[1].slice(0, 2)", "cannot slice(0, 2), list is length 1"),
        ("dyn([[1]]).flatten(-1)", "level must be non-negative"),
        ("lists.range(-1)", "lists.range: size must be non-negative, got -1"),
        ("dyn([dyn(1), dyn('a')]).sort()", "list elements must have the same type"),
    ] {
        assert!(run(expression).unwrap_err().contains(wanted), "{expression}: {:?}", run(expression));
    }
    assert!(run("lists.range(1000000000)").is_err());
}

#[test]
fn what_only_some_environments_have() {
    for (expression, missing) in [
        ("cel.bind(x, 1, x)", "undeclared reference to 'bind'"),
        ("jsonpatch.escapeKey('a/b')", "undeclared reference to 'escapeKey'"),
        ("isImage('a')", "undeclared reference to 'isImage'"),
        ("quantity('1').sign()", "found no matching overload for 'sign' applied to 'kubernetes.Quantity.()'"),
        ("quantity('1').mul(2)", "undeclared reference to 'mul'"),
        ("math.greatest(1, 2)", "undeclared reference to 'greatest'"),
        ("base64.encode(b'a')", "undeclared reference to 'encode'"),
        ("'abc'.reverse()", "found no matching overload for 'reverse' applied to 'string.()'"),
        ("1.sortBy(x, x)", "sortBy can only be applied to a list"),
    ] {
        let why = Env::new().compile(expression).map(|_| ()).unwrap_err().to_string();
        assert!(why.contains(missing), "{expression}: {why}");
    }
}
