/** Micrographs: a gallery of all, or one with its picks. */
import { html, useEffect } from "../lib/html.js";
import { getJson, withQuery } from "../lib/api.js";
import { goTo, place } from "../lib/router.js";
import { useStore } from "../lib/store.js";
import { fieldOrder, orderQuery } from "../lib/field_order.js";
import { FieldGallery } from "../parts/field_gallery.js";
import { FieldViewer } from "../parts/field_viewer.js";
import { say, sayError } from "../parts/messages.js";

export default function Micrographs() {
  const { parts, query } = useStore(place);
  const [id] = parts;
  useEffect(() => {
    if (id !== "first") return;
    getJson(withQuery("api/fields", { ...orderQuery(fieldOrder.get()), limit: 1, columns: "name" })).then(
      ({ rows }) => (rows.length ? goTo("micrograph", [rows[0][0]], {}, true) : say("There is no micrograph yet.")),
      sayError,
    );
  }, [id]);
  if (!id) return html`<${FieldGallery} />`;
  if (id === "first") return html`<main id="page" tabindex="-1" aria-busy="true"></main>`;
  return html`<${FieldViewer} id=${id} query=${query} />`;
}
