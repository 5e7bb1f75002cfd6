// Shows /v1/openapi.json. Everything is written as text, never as HTML.
"use strict";

let spec;

// Makes an element: its name with classes (`p.quiet`), its attributes, its children.
function make(name, attributes, ...children) {
  const [tag, ...classes] = name.split(".");
  const element = document.createElement(tag);
  if (classes.length > 0) element.className = classes.join(" ");
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  return add(element, ...children);
}

// Adds children to an element: elements, texts, lists of them, or nothing.
function add(element, ...children) {
  element.append(...children.flat(Infinity).filter((child) => child !== undefined));
  return element;
}

// Follows a reference within the document. What stands beside it, such as a description, wins.
function resolve(part) {
  if (!part || !part.$ref) return part;
  const path = part.$ref.slice(2).split("/");
  const found = path.reduce((at, key) => at[key.replaceAll("~1", "/").replaceAll("~0", "~")], spec);
  const { $ref, ...beside } = part;
  return { ...resolve(found), ...beside };
}

// Returns the other form of a schema that may also be null, or else the schema itself.
function present(schema) {
  const others = (schema?.oneOf || []).filter((one) => one.type !== "null");
  return others.length === 1 ? others[0] : schema;
}

const nameOf = (part) => part && part.$ref && part.$ref.split("/").pop();

// Makes paragraphs of a text, with `code`.
function prose(text) {
  const paragraphs = (text || "").split(/\n{2,}/).filter((paragraph) => paragraph.trim() !== "");
  return paragraphs.map((paragraph) => {
    const parts = paragraph.split("`");
    return make("p", {}, parts.map((part, n) => (n % 2 === 1 ? make("code", {}, part) : part)));
  });
}

const json = (value) => (typeof value === "string" ? value : JSON.stringify(value, null, 2));
const block = (text) => make("pre", { tabindex: "0" }, make("code", {}, text));

// Describes the type of a schema in some words.
function typeOf(schema) {
  const name = nameOf(schema);
  const full = resolve(schema) || {};
  const one = full.oneOf || full.anyOf;
  if (one) {
    return name || one.map(typeOf).join(" or ");
  }
  const types = [full.type || (full.allOf ? "object" : "any")].flat();
  const words = types.map((type) => {
    if (type === "array") return `list of ${typeOf(full.items || {})}`;
    if (type === "object" && name) return name;
    return full.format && type !== "null" ? `${type} (${full.format})` : type;
  });
  return words.join(" or ");
}

// Lists the limits of a schema.
function limitsOf(schema) {
  const full = { ...resolve(present(schema)), ...(schema?.default !== undefined && { default: schema.default }) };
  const limits = [];
  const range = (least, most, what) => {
    if (least !== undefined && most !== undefined) limits.push(`${least} to ${most}${what}`);
    else if (most !== undefined) limits.push(`at most ${most}${what}`);
    else if (least > 0) limits.push(`at least ${least}${what}`);
  };
  range(full.minLength, full.maxLength, " characters");
  range(full.minItems, full.maxItems, " items");
  range(full.minimum, full.maximum, "");
  if (full.pattern) limits.push(full.pattern);
  if (full.enum) limits.push(`one of ${full.enum.join(", ")}`);
  if (full.default !== undefined) limits.push(`${json(full.default)} if absent`);
  return limits.join("; ");
}

// Returns the fields of an object, those of its parts included.
function fieldsOf(schema) {
  const full = resolve(schema) || {};
  const parts = (full.allOf || []).map(fieldsOf);
  return {
    properties: Object.assign({}, ...parts.map((part) => part.properties), full.properties),
    required: [...parts.flatMap((part) => part.required), ...(full.required || [])],
  };
}

// Makes the tree of a schema. `above` are the names of the schemas around it.
function tree(given, above) {
  const schema = present(given);
  const name = nameOf(schema);
  if (name && above.includes(name)) return [];
  const around = name ? [...above, name] : above;
  const full = resolve(schema) || {};
  const alternatives = (full.oneOf || full.anyOf || []).filter((one) => one.type !== "null");
  if (alternatives.length > 0) {
    return [make("ul.fields", {}, alternatives.map((one) => make("li", {},
      make("span.kind", {}, `either ${typeOf(one)}`), prose(resolve(one).description), tree(one, around))))];
  }
  if (full.items) return tree(full.items, around);
  const { properties, required } = fieldsOf(schema);
  const fields = Object.entries(properties).map(([field, value]) => {
    const below = tree(value, around);
    const limits = below.length === 0 ? limitsOf(value) : "";
    const head = [
      make("code", {}, field), " ", make("span.kind", {}, typeOf(value)),
      required.includes(field) ? make("span.required", {}, " required") : undefined,
      limits ? make("span.kind", {}, `; ${limits}`) : undefined,
    ];
    const description = prose(value.description ?? resolve(present(value)).description);
    return make("li", {}, below.length === 0
      ? [...head, ...description]
      : make("details", {}, make("summary", {}, head), description, below));
  });
  if (fields.length > 0) return [make("ul.fields", {}, fields)];
  return full.additionalProperties && full.additionalProperties !== true ? tree(full.additionalProperties, around) : [];
}

// Returns an example of a body: its own, or that of its schema, or a list with that of an item.
function exampleOf(content) {
  const of = (schema) => (resolve(schema) || {}).examples?.[0];
  if (content.example !== undefined) return content.example;
  const items = fieldsOf(content.schema).properties.items;
  return of(content.schema) ?? (items && items.items ? { items: [of(items.items)], next_cursor: null } : undefined);
}

// Shows what a body may have, by media type.
function bodies(contents) {
  return Object.entries(contents || {}).map(([kind, content]) => {
    const example = exampleOf(content);
    const fields = tree(content.schema, []);
    return make("div", {},
      make("p", {}, make("code", {}, kind), make("span.kind", {}, ` ${typeOf(content.schema)}`)),
      fields.length > 0 ? make("details", {}, make("summary", {}, "Fields"), fields) : undefined,
      example !== undefined ? block(json(example)) : undefined);
  });
}

function parameters(operation) {
  const rows = (operation.parameters || []).map(resolve).map((parameter) => make("tr", {},
    make("td", {}, make("code", {}, parameter.name), parameter.required ? make("span.required", {}, " required") : undefined),
    make("td.kind", {}, parameter.in),
    make("td", {}, prose(parameter.description),
      make("span.kind", {}, [typeOf(parameter.schema), limitsOf(parameter.schema)].filter(Boolean).join("; ")),
      parameter.example !== undefined ? make("span.kind", {}, ", such as ", make("code", {}, String(parameter.example))) : undefined)));
  if (rows.length === 0) return [];
  const titles = ["name", "in", "meaning"].map((title) => make("th", { scope: "col" }, title));
  return [make("h4", {}, "Parameters"), make("table", {}, make("thead", {}, make("tr", {}, titles)), make("tbody", {}, rows))];
}

function answer(status, answer) {
  const full = resolve(answer);
  const headers = Object.entries(full.headers || {}).map(([name, header]) =>
    make("li", {}, make("code", {}, name), " ", prose(resolve(header).description)));
  const links = Object.entries(full.links || {}).map(([name, link]) =>
    make("li", {}, make("a", { href: `#${link.operationId}` }, name)));
  const isGood = status.startsWith("2");
  return make("details", isGood ? { open: "" } : {},
    make("summary", {}, make("code", {}, status), " ", full.description || ""),
    headers.length > 0 ? [make("p.quiet", {}, "Headers"), make("ul.fields", {}, headers)] : undefined,
    bodies(full.content),
    links.length > 0 ? [make("p.quiet", {}, "May be followed by"), make("ul.fields", {}, links)] : undefined);
}

// Writes a call of an operation for a shell.
function command(method, path, operation) {
  const quoted = (text) => `'${text.replaceAll("'", "'\\''")}'`;
  const all = (operation.parameters || []).map(resolve);
  const given = all.filter((parameter) => parameter.in === "path");
  const url = given.reduce((url, { name, example }) => url.replace(`{${name}}`, encodeURIComponent(example)), path);
  const words = ["curl"];
  if (method !== "get") words.push("-X", method.toUpperCase());
  words.push(location.origin + url);
  const [kind, content] = Object.entries(operation.requestBody?.content || {})[0] || [];
  if (content) {
    const body = exampleOf(content);
    words.push("\\\n  -H", quoted(`content-type: ${kind}`), "\\\n  -d", quoted(typeof body === "string" ? body : JSON.stringify(body)));
  }
  return words.join(" ");
}

function callers(operation) {
  const named = (operation.security || []).flatMap((one) => Object.entries(one));
  const scopes = named.flatMap(([, scopes]) => scopes);
  if (named.length === 0) return "No token or signature.";
  const scope = scopes.length > 0 ? ` The token needs the scope ${scopes.join(", ")}.` : "";
  return `By ${named.map(([name]) => name).join(" or ")}.${scope}`;
}

function section(method, path, operation) {
  return make("section.operation", { id: operation.operationId },
    make("h3", {}, operation.summary || operation.operationId),
    make("p.route", {}, make(`span.method.${method}`, {}, method), make("code", {}, path)),
    prose(operation.description),
    make("p.quiet", {}, callers(operation)),
    block(command(method, path, operation)),
    parameters(operation),
    operation.requestBody ? [make("h4", {}, "Body"), prose(operation.requestBody.description), bodies(operation.requestBody.content)] : undefined,
    make("h4", {}, "Answers"),
    Object.entries(operation.responses).map(([status, one]) => answer(status, one)));
}

function show(main, index) {
  const { info } = spec;
  const operations = Object.entries(spec.paths).flatMap(([path, item]) =>
    Object.entries(item).map(([method, operation]) => ({ method, path, operation })));
  const schemes = Object.entries(spec.components.securitySchemes || {}).map(([name, scheme]) =>
    make("li", {}, make("code", {}, name), " ", prose(scheme.description)));
  add(main,
    make("h1", {}, info.title, " ", make("small", {}, `HTTP API, version ${info.version}`)), prose(info.description),
    make("p", {}, make("a", { href: "/v1/openapi.json" }, "The document as JSON")),
    make("h2", {}, "Callers"), make("ul.fields", {}, schemes));
  for (const tag of spec.tags || []) {
    const mine = operations.filter(({ operation }) => (operation.tags || [])[0] === tag.name);
    add(index, make("h2", {}, tag.name), make("ul", {}, mine.map(({ method, path, operation }) =>
      make("li", { "data-text": `${method} ${path} ${operation.summary}`.toLowerCase() },
        make("a", { href: `#${operation.operationId}` }, make(`span.method.${method}`, {}, method), operation.summary)))));
    add(main, make("h2", {}, tag.name), prose(tag.description),
      mine.map(({ method, path, operation }) => section(method, path, operation)));
  }
}

async function start() {
  const [main, index, state, filter] = ["content", "index", "state", "filter"].map((id) => document.getElementById(id));
  try {
    const answer = await fetch("/v1/openapi.json");
    if (!answer.ok) throw new Error(`it was answered with ${answer.status}`);
    spec = await answer.json();
    show(main, index);
    state.remove();
    document.getElementById(location.hash.slice(1))?.scrollIntoView();
  } catch (error) {
    state.className = "error";
    state.textContent = `/v1/openapi.json cannot be shown: ${error.message}`;
  }
  filter.addEventListener("input", () => {
    const wanted = filter.value.trim().toLowerCase();
    for (const item of index.querySelectorAll("li")) item.hidden = !item.dataset.text.includes(wanted);
    for (const list of index.querySelectorAll("ul")) {
      const isEmpty = list.querySelector("li:not([hidden])") === null;
      list.hidden = isEmpty;
      list.previousElementSibling.hidden = isEmpty;
    }
  });
}

start();
