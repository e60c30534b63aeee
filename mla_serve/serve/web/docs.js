// Start the API's documentation. If the service needs an API key, use the playground's, or ask for one.

const KEY = "mla_serve.key"; // as in ask.js
const send = window.fetch;

window.fetch = async (resource, options) => {
  const request = new Request(resource, options);
  const key = sessionStorage.getItem(KEY);
  const isOurs = new URL(request.url).origin === location.origin;
  if (key && isOurs && !request.headers.has("Authorization")) request.headers.set("Authorization", `Bearer ${key}`);
  const reply = await send(request);
  if (isOurs && reply.status === 401) askForKey();
  return reply;
};

function askForKey() {
  if (document.querySelector("form.key")) return;
  const form = document.createElement("form");
  form.className = "key";
  const input = Object.assign(document.createElement("input"), { type: "password", required: true, autocomplete: "off", placeholder: "API key" });
  input.setAttribute("aria-label", "API key");
  const button = Object.assign(document.createElement("button"), { textContent: "Use this key" });
  form.addEventListener("submit", event => {
    event.preventDefault();
    sessionStorage.setItem(KEY, input.value.trim());
    location.reload();
  });
  form.append(input, button);
  document.body.prepend(form);
}

if (window.SwaggerUIBundle) {
  SwaggerUIBundle({ url: "openapi.json", dom_id: "#swagger-ui", deepLinking: true, presets: [SwaggerUIBundle.presets.apis, SwaggerUIBundle.SwaggerUIStandalonePreset] });
}
