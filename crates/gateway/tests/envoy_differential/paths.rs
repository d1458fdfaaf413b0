//! Which rule a path reaches, and what it binds.

use serde_json::{Value, json};

use crate::row::{Row, get, post, request};

pub(crate) fn rows() -> Vec<Row> {
    let anything = || Value::Null;
    vec![
        get("/v2/items/a").same(200, json!({"s": "a"})),
        get("/v2/items/a%20b%3Fc%23d").same(200, json!({"s": "a b?c#d"})),
        get("/v2/items/a+b").same(200, json!({"s": "a+b"})),
        get("/v2/items/%E2%98%83").same(200, json!({"s": "☃"})),
        get("/v2/items/a%3Ab").same(200, json!({"s": "a:b"})),
        get("/v2/items/a%2fb%2Fc").same(200, json!({"s": "a/b/c"})),
        get("/v2/items/.").same(200, json!({"s": "."})),
        get("/v2/items/a;b=c,d@e!$&'()*~").same(200, json!({"s": "a;b=c,d@e!$&'()*~"})),
        get("/v2/items/:").same(200, json!({"s": ":"})),
        get("/v2/items/%zz").differ(
            "Envoy keeps a broken escape",
            (200, json!({"s": "%zz"})),
            (400, json!({"code": 3})),
        ),
        get("/v2/items/%4").differ(
            "Envoy keeps a broken escape",
            (200, json!({"s": "%4"})),
            (400, json!({"code": 3})),
        ),
        get("/v2/it%65ms/a").differ(
            "Envoy compares the escaped text",
            (404, anything()),
            (200, json!({"s": "a"})),
        ),
        get("/v2/Items/a").refused(404, ""),
        get("/v2//items/a").refused(404, ""),
        get("/v2/items").refused(404, ""),
        get("/v2/items/a/b").refused(404, ""),
        get("/v2/items/a/").differ(
            "Envoy ignores a slash at the end",
            (200, json!({"s": "a"})),
            (404, json!({"code": 5})),
        ),
        get("/nothing").refused(404, ""),
        get("/v2/users/ann/items/7").same(200, json!({"s": "7", "msg": {"name": "ann"}})),
        // Verbs.
        post("/v2/items/a:revoke", "").same(200, json!({"s": "a"})),
        post("/v2/items/search", r#"{"s": "q"}"#).same(200, json!({"s": "q"})),
        get("/v2/items/a:revoke").differ(
            "Envoy cuts off a verb that only POST has",
            (404, anything()),
            (200, json!({"s": "a:revoke"})),
        ),
        post("/v2/items/a:unknown", "").differ("we have 405", (404, anything()), (405, json!({"code": 12}))),
        // Precedence, with a way back.
        get("/v2/back/x/b").same(200, json!({"s": "x"})),
        get("/v2/back/x/c").same(200, json!({"name": "", "page_size": 0})),
        get("/v2/back/y/b").same(200, json!({"s": "y"})),
        get("/v2/back/y/c").refused(404, ""),
        // Several segments.
        get("/v2/files/a").same(200, json!({"s": "files/a"})),
        get("/v2/files/a/b/c.txt").same(200, json!({"s": "files/a/b/c.txt"})),
        get("/v2/files/a%2Fb").same(200, json!({"s": "files/a%2Fb"})),
        get("/v2/files/a%20b").same(200, json!({"s": "files/a b"})),
        get("/v2/mid/rev").differ(
            "Envoy wants a segment for a `**` that is not last",
            (404, anything()),
            (200, json!({"s": "mid"})),
        ),
        get("/v2/mid/a/rev").same(200, json!({"s": "mid/a"})),
        get("/v2/mid/rev/rev").same(200, json!({"s": "mid/rev"})),
        get("/v2/mid/a").refused(404, ""),
        // Kinds.
        get("/v2/kinds/-7/18446744073709551615/true/COLOUR_RED/aGk=").same(
            200,
            json!({"i32": -7, "u64": "18446744073709551615", "b": true, "e": "COLOUR_RED", "by": "aGk="}),
        ),
        get("/v2/kinds/0/0/false/2/aGk").same(200, json!({"e": "COLOUR_GREEN", "by": "aGk="})),
        get("/v2/kinds/x/0/false/2/aGk").refused(400, "i32"),
        get("/v2/kinds/2147483648/0/false/2/aGk").refused(400, "i32"),
        get("/v2/kinds/0/-1/false/2/aGk").refused(400, "u64"),
        get("/v2/kinds/0/0/maybe/2/aGk").refused(400, "b"),
        get("/v2/kinds/0/0/true/PURPLE/aGk").refused(400, "e"),
        // Methods.
        request("PURGE", "/v2/cache/a").same(200, json!({"s": "a"})),
        request("PUT", "/v2/items/a").differ("we have 405", (404, anything()), (405, json!({"code": 12}))),
    ]
}
