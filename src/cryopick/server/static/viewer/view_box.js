/**
 * Where an image lies on the screen. screen = image * scale + offset, all in CSS pixels and image
 * pixels; the middle of the first image pixel is (0, 0), so its corner is at (-0.5, -0.5).
 * @typedef {{scale: number, x: number, y: number}} ViewBox
 */

/** @returns {ViewBox} the whole image as large as it fits */
export function fitted(width, height, screenWidth, screenHeight) {
  const scale = Math.min(screenWidth / width, screenHeight / height) || 1;
  return {
    scale,
    x: (screenWidth - width * scale) / 2 + scale / 2,
    y: (screenHeight - height * scale) / 2 + scale / 2,
  };
}

/** @param {ViewBox} view @returns {ViewBox} zoomed by a factor about a point of the screen */
export function zoomed(view, factor, screenX, screenY, least = 0.01, most = 32) {
  const scale = Math.min(most, Math.max(least, view.scale * factor));
  const ratio = scale / view.scale;
  return { scale, x: screenX - (screenX - view.x) * ratio, y: screenY - (screenY - view.y) * ratio };
}

/** @param {ViewBox} view @returns {ViewBox} */
export function moved(view, dx, dy) {
  return { ...view, x: view.x + dx, y: view.y + dy };
}

/** @param {ViewBox} view @returns {[number, number]} x, y in pixels of the image */
export function toImage(view, screenX, screenY) {
  return [(screenX - view.x) / view.scale, (screenY - view.y) / view.scale];
}

/** @param {ViewBox} view @returns {[number, number]} x, y on the screen */
export function toScreen(view, x, y) {
  return [x * view.scale + view.x, y * view.scale + view.y];
}

/** @param {ViewBox} view @returns {ViewBox} with an image point in the middle of the screen */
export function centredOn(view, x, y, screenWidth, screenHeight) {
  return { ...view, x: screenWidth / 2 - x * view.scale, y: screenHeight / 2 - y * view.scale };
}
