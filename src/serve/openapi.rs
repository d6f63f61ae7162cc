//! The description of the API: as OpenAPI 3.1, and for people.

use maud::{DOCTYPE, html};
use serde_json::{Map, Value, json};

use super::answers::NOTE;

/// What the routes for work may refuse.
const REFUSALS: [(&str, &str); 13] = [
    ("400", "The image cannot be decoded, or the request makes no sense"),
    ("401", "The token is missing or wrong"),
    ("403", "The request came from another web page, or by a name that is not localhost"),
    ("404", "No such model is served"),
    ("405", "The method is not POST"),
    ("408", "The request arrived too slowly"),
    ("413", "The body, an image's pixels or the number of images are above the limit"),
    ("414", "The address is too long"),
    ("415", "The body is no image and no form, or an image of no known format"),
    ("429", "Too many requests of this client are in progress; see Retry-After"),
    ("431", "The headers are too many or too large"),
    ("500", "The model's answer is not a number, or the server is at fault"),
    ("503", "Too much is waiting, or the request took too long; see Retry-After"),
];

/// A schema of an object that has all of these properties.
fn object(properties: Value) -> Value {
    let names: Vec<String> = properties.as_object().map(|p| p.keys().cloned().collect()).unwrap_or_default();
    json!({ "type": "object", "properties": properties, "required": names })
}

fn described(schema: &str, description: &str) -> Value {
    json!({ "type": schema, "description": description })
}

/// Of an answer with these properties of each image.
fn answer(own: &Value) -> Value {
    let mut image = json!({
        "name": { "type": ["string", "null"], "description": "the file's name in the form" },
        "width": described("integer", "pixels, as a viewer shows it"),
        "height": described("integer", "pixels"),
    });
    if let (Some(image), Some(own)) = (image.as_object_mut(), own.as_object()) {
        image.extend(own.clone());
    }
    let mut whole = object(json!({
        "note": { "type": "string", "const": NOTE },
        "models": described("integer", "models whose mean this is"),
        "images": { "type": "array", "description": "in the order of the request", "items": object(image) },
    }));
    whole["properties"]["temperature"] =
        described("number", "what logits were divided by, where probabilities are calibrated");
    whole["properties"]["views"] =
        described("integer", "views of each image whose mean this is, where there are several (--tta)");
    whole
}

fn refused(description: &str) -> Value {
    let schema = json!({ "$ref": "#/components/schemas/Error" });
    json!({ "description": description, "content": { "application/json": { "schema": schema } } })
}

/// A route for work; `png` says what picture it may answer with instead.
fn work(summary: &str, schema: &str, png: Option<&str>, parameters: &Value) -> Value {
    let binary = json!({ "type": "string", "format": "binary" });
    let form = json!({ "type": "object", "properties": { "file": { "type": "array", "items": binary } } });
    let mut content = json!({ "application/json": { "schema": { "$ref": format!("#/components/schemas/{schema}") } } });
    if let Some(png) = png {
        content["image/png"] = json!({ "schema": { "type": "string", "format": "binary", "description": png } });
    }
    let mut responses = Map::new();
    responses.insert("200".to_owned(), json!({ "description": "The answer", "content": content }));
    responses.extend(REFUSALS.map(|(status, text)| (status.to_owned(), refused(text))));
    json!({ "post": {
        "summary": summary,
        "parameters": parameters,
        "requestBody": { "required": true, "content": {
            "image/*": { "schema": binary },
            "application/octet-stream": { "schema": binary },
            "multipart/form-data": { "schema": form },
        } },
        "responses": responses,
        "security": [{ "token": [] }, {}],
    } })
}

fn read(summary: &str, kind: &str, closed: bool) -> Value {
    let answer = json!({ "description": "The answer", "content": { kind: {} } });
    let mut get = json!({ "get": { "summary": summary, "responses": { "200": answer } } });
    if closed {
        get["get"]["security"] = json!([{ "token": [] }, {}]);
        get["get"]["responses"]["401"] = refused("The token is missing or wrong");
    }
    get
}

/// The OpenAPI document.
pub(super) fn document() -> Value {
    let probability = object(json!({ "class": { "type": "string" }, "probability": { "type": "number" } }));
    let class = json!([{
        "name": "class", "in": "query", "required": false, "schema": { "type": "string" },
        "description": "the class to explain; by default the predicted one",
    }]);
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "lesion-gpu",
            "version": env!("CARGO_PKG_VERSION"),
            "description": format!(
                "Classifies and segments images of skin lesions. {NOTE} What is no request by the rules of HTTP is answered with 400, 414 \
                 or 431 and no words, or by the end of the connection."
            ),
        },
        "paths": {
            "/v1/predict": work("The probabilities of the classes", "Predicted", None, &json!([])),
            "/v1/explain": work("Where the model looks", "Explained", Some("the overlay, of one image"), &class),
            "/v1/segment": work("The mask of the lesion", "Segmented", Some("the mask, of one image"), &json!([])),
            "/v1/model": read("The models, their classes, and the limits", "application/json", true),
            "/healthz": read("Whether the server runs", "text/plain", false),
            "/metrics": read("Counters for Prometheus", "text/plain", true),
            "/openapi.json": read("This description", "application/json", false),
            "/docs": read("This description, for people", "text/html", false),
        },
        "components": {
            "securitySchemes": { "token": { "type": "http", "scheme": "bearer" } },
            "schemas": {
                "Predicted": answer(&json!({
                    "label": described("string", "the likeliest class"),
                    "classes": { "type": "array", "description": "the likeliest first", "items": probability },
                })),
                "Explained": answer(&json!({
                    "class": described("string", "the class that is explained"),
                    "probability": described("number", "of that class"),
                    "method": described("string", "grad-cam, grad-cam++ or rollout"),
                    "layer": { "type": ["string", "null"], "description": "the layer that is looked at" },
                    "peak": described("number", "the map's largest value; zero says that nothing speaks for the class"),
                    "overlay": described("string", "PNG in base64: the map on the image, at most 1024 pixels a side"),
                    "heat": described("string", "PNG in base64: the map alone"),
                })),
                "Segmented": answer(&json!({
                    "share": described("number", "the part of the image that is inside, from 0 to 1"),
                    "shape": {
                        "anyOf": [{ "$ref": "#/components/schemas/Shape" }, { "type": "null" }],
                        "description": "area, perimeter, border, asymmetry along the long and the short axis, and diameter of the mask's largest \
                                        part, in pixels of the image, and the number of parts; null if nothing is inside. They \
                                        describe the mask, and are no score and no diagnosis",
                    },
                    "contours": {
                        "type": "array",
                        "description": "closed outlines, the largest first, of points [x, y] in pixels of the image",
                        "items": { "type": "array", "items": { "type": "array", "items": { "type": "integer" } } },
                    },
                    "mask": described("string", "PNG in base64, as large as the image: white inside, black outside"),
                })),
                "Shape": object(json!({
                    "parts": described("integer", "parts of the mask that touch nowhere"),
                    "area": described("integer", "pixels in the largest part"),
                    "perimeter": described("number", "length of its border and of those of its holes, in pixels"),
                    "border": described("number", "how irregular the border is: perimeter squared by 4 pi times the area, about 1.1 of a disc"),
                    "asymmetry": {
                        "type": "array", "items": { "type": "number" }, "minItems": 2, "maxItems": 2,
                        "description": "the shares that mirror images along its long and its short axis do not cover, from 0 to 1",
                    },
                    "diameter": described("number", "the largest distance between two points of the border, in pixels"),
                })),
                "Error": object(json!({ "error": object(json!({
                    "kind": described("string", "a word that does not change"),
                    "message": described("string", "what happened"),
                    "next": described("string", "what to do"),
                })) })),
            },
        },
    })
}

/// The same as a page.
pub(super) fn page() -> String {
    let document = document();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let empty = Map::new();
    let entries = |value: &Value| value.as_object().unwrap_or(&empty).clone();
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                title { "API of lesion-gpu" }
                link rel="icon" href="/icon.svg";
                link rel="stylesheet" href="/style.css";
            }
            body class="docs" {
                main {
                    h1 { "API of lesion-gpu" }
                    p class="banner" { strong { (NOTE) } }
                    p { "Send an image as the body, or files as a form; answers are JSON. " a href="/openapi.json" { "OpenAPI" }
                        " · " a href="/" { "To the page" } }
                    pre tabindex="0" { code {
                        "curl --data-binary @photo.jpg -H 'Content-Type: image/jpeg' http://localhost:8080/v1/predict\n"
                        "curl -F file=@one.jpg -F file=@two.jpg http://localhost:8080/v1/predict\n"
                        "curl -F file=@photo.jpg -H 'Accept: image/png' http://localhost:8080/v1/explain > overlay.png"
                    } }
                    p { "Where the server wants a token, add " code { "-H 'Authorization: Bearer TOKEN'" } "." }
                    @for (path, methods) in entries(&document["paths"]) {
                        @for (method, operation) in entries(&methods) {
                            h2 { code { (method.to_uppercase()) " " (path) } }
                            p { (text(&operation["summary"])) "." }
                            @for parameter in operation["parameters"].as_array().into_iter().flatten() {
                                p { code { "?" (text(&parameter["name"])) "=" } " " (text(&parameter["description"])) "." }
                            }
                            @let schema = &operation["responses"]["200"]["content"]["application/json"]["schema"]["$ref"];
                            @if let Some(name) = schema.as_str().and_then(|name| name.rsplit('/').next()) {
                                table {
                                    thead { tr { th scope="col" { "of each image" } th scope="col" { "meaning" } } }
                                    tbody {
                                        @let image = &document["components"]["schemas"][name]["properties"]["images"]["items"];
                                        @for (field, schema) in entries(&image["properties"]) {
                                            tr { td { code { (field) } } td { (text(&schema["description"])) } }
                                        }
                                    }
                                }
                            }
                        }
                    }
                    h2 { "Errors" }
                    p { code { r#"{"error": {"kind": …, "message": …, "next": …}}"# }
                        ". What is no request at all, by the rules of HTTP, is answered with 400, 414 or 431 and no words, or by the end of the connection." }
                    table {
                        thead { tr { th scope="col" { "status" } th scope="col" { "when" } } }
                        tbody { @for (status, when) in REFUSALS { tr { td { (status) } td { (when) "." } } } }
                    }
                }
            }
        }
    }
    .into_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every reference leads somewhere.
    #[test]
    fn references_are_there() {
        let document = document();
        let text = document.to_string();
        let mut count = 0;
        for (_, rest) in text.match_indices("\"$ref\":\"#").map(|(at, found)| text.split_at(at + found.len())) {
            let pointer = rest.split('"').next().unwrap();
            assert!(document.pointer(pointer).is_some_and(Value::is_object), "{pointer}");
            count += 1;
        }
        assert!(count > 30, "{count}");
    }

    #[test]
    fn the_page_has_all_routes() {
        let page = page();
        for path in document()["paths"].as_object().unwrap().keys() {
            assert!(page.contains(&format!(" {path}</code>")), "{path}");
        }
    }
}
