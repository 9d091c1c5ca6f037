//! Costs: what evaluations cost, what is estimated, and where the limits stop them. The numbers are upstream's.

#![expect(clippy::unwrap_used, reason = "tests")]

use cel::{Budget, Env, ErrorKind, ListSemantics, ObjectType, Type, Variables};
use serde_json::{Value as Json, json};

fn object() -> Json {
    json!({
        "n": 5, "m": 5, "text": "Rook takes 👑", "list": [1, 2, 3], "list2": [1, 2, 3], "map": {"b": 1, "d": 2},
        "rows": [{"k": "a1", "v": "b1"}, {"k": "a2", "v": "b2"}, {"k": "a3", "v": "b3", "v2": "z"}],
        "array": [1, 1, 2, 2, 3, 3, 4, 5], "deep": {"b": 1}, "when": "2011-08-18T19:03:37.01+01:00", "any": "25%"
    })
}

fn env() -> Env {
    let row = ObjectType::new("Row").field("k", Type::String).field("v", Type::String).field("v2", Type::String);
    let of = ObjectType::new("Self")
        .field("n", Type::Int)
        .field("m", Type::Int)
        .field("text", Type::String)
        .field("list", Type::list(Type::Int))
        .field("list2", Type::list(Type::Int))
        .field("map", Type::map(Type::String, Type::Int))
        .field("rows", Type::list_of(Type::object(row), ListSemantics::Map(vec!["k".to_owned()])))
        .field("array", Type::list(Type::Int))
        .field("deep", Type::object(ObjectType::new("Deep").field("b", Type::Int)))
        .field("when", Type::Timestamp)
        .field("any", Type::Dyn);
    Env::new().variable("self", Type::object(of)).variable("authorizer", Type::AUTHORIZER).bindings()
}

fn spent(expression: &str) -> u64 {
    let (object, program) = (object(), env().compile(expression).unwrap());
    let mut variables = Variables::new();
    variables.json("self", &object);
    let mut budget = Budget::new(cel::RUNTIME_BUDGET);
    let outcome = program.eval(&variables, &mut budget);
    assert!(outcome.is_ok(), "{expression}: {outcome:?}");
    budget.spent()
}

#[test]
fn evaluations_cost_what_upstreams_do() {
    for (expression, cost) in [
        ("self.n == self.m", 5),
        ("type(self.n) == int", 4),
        ("self.n + 1 == 5 + 1", 5),
        ("double(5) < 10.0", 1),
        ("double(self.n) < 10.0", 4),
        ("self.text.startsWith('Rook')", 4),
        ("!self.text.startsWith('knight')", 5),
        ("self.text.matches('^[^0-9]*$')", 8),
        ("size(self.text) == 12", 4),
        ("self.text.charAt(3) == 'k'", 4),
        ("self.text.indexOf('o') == 1", 4),
        ("self.text.replace(' ', 'x') == 'Rookxtakesx👑'", 7),
        ("self.text.split(' ') == ['Rook', 'takes', '👑']", 6),
        ("self.text.substring(5) == 'takes 👑'", 5),
        ("self.text.substring(4, 10).trim() == 'takes'", 6),
        ("self.any in ['Pending', '25%']", 2),
        ("1 in self.list", 5),
        ("self.list2[0] in self.list", 8),
        ("!(0 in self.list)", 6),
        ("self.list + self.list2 == [1, 2, 3, 1, 2, 3]", 6),
        ("self.list + [4, 5] == [1, 2, 3, 4, 5]", 4),
        ("self.rows[0] == self.rows[1]", 7),
        ("self.rows == [self.rows[0], self.rows[1]]", 19),
        ("has(self.deep.b)", 2),
        ("!has(self.deep.b)", 3),
        ("'b' in self.map", 3),
        ("self.map.all(k, self.map[k] > 0)", 17),
        ("self.map.exists_one(k, self.map[k] == 2)", 14),
        ("!self.map.exists_one(k, self.map[k] > 0)", 17),
        ("size(self.map.filter(k, self.map[k] > 1)) == 1", 26),
        ("has(self.rows[0].v)", 3),
        ("self.rows.all(m, m.k.startsWith('a'))", 21),
        ("self.rows.exists(m, m.k.endsWith('1'))", 13),
        ("self.rows.exists_one(m, m.k == 'a3')", 15),
        ("self.rows.exists(m, m.k == 'a1' && m.v == 'b1')", 16),
        ("self.rows.map(m, m.v).exists(v, v == 'b1')", 55),
        ("self.rows.exists(m, has(m.v2) && m.v2 == 'z')", 21),
        ("self.rows.exists(m, m.v2 == 'z')", 24),
        ("!self.rows.all(m, m.v2 != 'z')", 22),
        ("2 in self.array", 10),
        ("self.array.all(e, e > 0)", 43),
        ("self.array.exists(e, e > 2)", 36),
        ("self.array.exists_one(e, e > 4)", 22),
        ("size(self.array.filter(e, e%2 == 0)) == 3", 68),
        ("self.array.map(e, e * 20).filter(e, e > 50).exists(e, e == 60)", 194),
        ("string(self.when) == '2011-08-18T18:03:37.01Z'", 6),
        ("type(self.any) == int ? self.any == 1 : self.any == '25%'", 7),
        ("self.any == 1 || self.any == '25%'", 6),
        ("self.list.reverse() == [3, 2, 1]", 17),
        ("self.array.distinct() == [1, 2, 3, 4, 5]", 142),
        ("self.array.slice(0, 2) == [1, 1]", 16),
        ("self.rows.map(m, m.k).sort() == ['a1', 'a2', 'a3']", 75),
    ] {
        assert_eq!(spent(expression), cost, "{expression}");
    }
}

#[test]
fn estimates_are_upstreams() {
    let most = |path: &[String]| match path.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["self", "text"] => Some(100),
        ["self", "list"] => Some(10),
        ["self", "rows"] => Some(20),
        ["self", "rows", "@items", "k"] => Some(8),
        ["self", "map"] => Some(3),
        ["self", "map", "@keys"] => Some(30),
        _ => None,
    };
    for (expression, min, max) in [
        ("[1, 2, 3, 4, 5].sum()", 15, 15),
        ("[uint(1), uint(2), uint(3), uint(4), uint(5)].sum()", 20, 20),
        ("['a', 'b'].isSorted()", 12, 3_689_348_814_741_910_540),
        ("url('https:://kubernetes.io/').getHost()", 4, 4),
        ("ip('192.168.0.1').family()", 3, 3),
        ("cidr('192.168.0.0/16').containsIP(ip('192.0.0.1'))", 4, 7),
        ("self.n == self.m", 5, 5),
        ("self.text == 'abc'", 3, 3),
        ("self.text.startsWith('abc')", 3, 3),
        ("self.text.contains('abc')", 2, 12),
        ("self.text.matches('a+')", 3, 13),
        ("self.list.all(x, x > 0)", 3, 53),
        ("self.rows.all(r, r.k == 'x')", 3, 123),
        ("self.map.all(k, k.startsWith('a'))", 3, 18),
        ("has(self.text)", 1, 1),
        ("self.n > 0 ? self.text == 'a' : false", 3, 6),
        ("authorizer.group('').resource('pods').check('get').allowed()", 350_004, 350_004),
        ("cel.bind(x, self.n, x + x)", 15, 15),
        ("[1, 2, 3, 4].slice(1, 3)", 23, 23),
        ("self.list.reverse()", 13, 23),
        ("self.list.distinct()", 13, 213),
        ("self.list.sort()", 13, 213),
        ("['b', 'a'].sort()", 30, 30),
        ("lists.range(5)", 17, 17),
        ("[[1], [2]].flatten()", 43, 43),
        ("authorizer.group('').resource('pods').labelSelector('a=b,c=d').check('get').allowed()", 350_215, 350_215),
    ] {
        let estimate = env().compile(expression).unwrap().estimated_cost(&most);
        assert_eq!((estimate.min, estimate.max), (min, max), "{expression}");
    }
    let unbounded = env().compile("self.array.all(x, self.array.all(y, x == y))").unwrap().estimated_cost(&most);
    assert_eq!(unbounded.max, u64::MAX);
}

#[test]
fn limits_stop_evaluations() {
    let thousand: Vec<i64> = (0..1000).collect();
    let object = json!({"array": thousand});
    let program = env().compile("self.array.all(x, self.array.all(y, self.array.all(z, x + y + z >= 0)))").unwrap();
    let mut variables = Variables::new();
    variables.json("self", &object);
    let mut budget = Budget::new(cel::RUNTIME_BUDGET);
    let error = program.eval(&variables, &mut budget).unwrap_err();
    assert_eq!((error.kind, error.to_string().as_str()), (ErrorKind::CallLimit, "operation cancelled: actual cost limit exceeded"));
    assert!(budget.spent() >= 1_000_000 && budget.spent() < 1_100_000);

    let cheap = env().compile("self.array.all(x, x >= 0)").unwrap();
    let mut budget = Budget::new(100);
    assert_eq!(cheap.eval(&variables, &mut budget).unwrap_err().kind, ErrorKind::BudgetExhausted);
    assert!(budget.exhausted());

    // Doubling texts and lists ends before memory does; loops that cost nothing end too.
    let doubled = |seed: &str| (0..60).fold(seed.to_owned(), |e, _| format!("cel.bind(a, {e}, a + a)"));
    for expression in [
        doubled("'0123456789'"),
        doubled("[1, 2, 3]"),
        "self.array.exists_one(a, self.array.exists_one(b, self.array.exists_one(c, false)))".to_owned(),
        "self.array.all(a, self.array.all(b, [self] == [self]))".to_owned(),
        "self.array.all(a, self.array.all(b, !sets.contains(self.array, [-1])))".to_owned(),
        "self.array.all(a, !'x'.matches('(y{31}){32}' + string(a)))".to_owned(),
    ] {
        let program = env().compile(&expression).unwrap();
        let error = program.eval(&variables, &mut Budget::new(cel::RUNTIME_BUDGET)).unwrap_err();
        assert_eq!(error.kind, ErrorKind::CallLimit, "{}", &expression[..30]);
    }
}
