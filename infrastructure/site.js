// CloudFront runs this before it looks for a file: each address leads into the site that the store names as `current`.
// The build of the stack puts the page for the time before the first site in place of NOT_YET.
import cf from "cloudfront";

const store = cf.kvs();

function notYet() {
    return {
        statusCode: 503,
        statusDescription: "Service Unavailable",
        headers: {
            "content-type": { value: "text/html; charset=utf-8" },
            "cache-control": { value: "no-cache" },
            "retry-after": { value: "60" },
        },
        body: NOT_YET,
    };
}

function query(given) {
    const pairs = [];
    for (const name in given) {
        const values = given[name].multiValue || [given[name]];
        values.forEach((one) => pairs.push(one.value === "" ? name : `${name}=${one.value}`));
    }
    return pairs.length ? `?${pairs.join("&")}` : "";
}

async function handler(event) {
    const request = event.request;
    const path = request.uri.replace(/^\/+/, "/");
    if (path.startsWith("/assets/")) {
        request.uri = path;
        return request;
    }
    const last = path.slice(path.lastIndexOf("/") + 1);
    if (last !== "" && !last.includes(".")) {
        return {
            statusCode: 301,
            statusDescription: "Moved Permanently",
            headers: { location: { value: `${path}/${query(request.querystring)}` } },
        };
    }
    let site;
    try {
        site = await store.get("current");
    } catch (error) {
        return notYet();
    }
    request.uri = `/sites/${site}${path}${last === "" ? "index.html" : ""}`;
    return request;
}
