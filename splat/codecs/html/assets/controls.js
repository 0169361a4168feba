// Where the viewer is and looks: turned, moved and flown by mouse, keys and fingers.

const add = (a, b, s = 1) => a.map((v, i) => v + s * b[i]);
const dot = (a, b) => a[0] * b[0] + a[1] * b[1] + a[2] * b[2];
const cross = (a, b) => [a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]];
const unit = (a) => { const length = Math.hypot(...a) || 1; return a.map((v) => v / length); };

const STEEPEST = Math.PI / 2 - 0.01;
const KEYS = {
  KeyW: [0, 0, 1], ArrowUp: [0, 0, 1], KeyS: [0, 0, -1], ArrowDown: [0, 0, -1], KeyD: [1, 0, 0], ArrowRight: [1, 0, 0],
  KeyA: [-1, 0, 0], ArrowLeft: [-1, 0, 0], KeyE: [0, -1, 0], KeyQ: [0, 1, 0],
};

class Controls {
  // view: position, target, up. changed() is called after every movement, picked(x, y) for a double click.
  constructor(element, view, changed, picked) {
    Object.assign(this, {element, view, changed, picked, flying: false, pressed: new Set(), fingers: new Map()});
    this.up = unit(view.up);
    this.east = unit(cross(this.up, Math.abs(this.up[0]) < 0.9 ? [1, 0, 0] : [0, 1, 0]));
    this.north = cross(this.up, this.east);
    this.reset();
    element.addEventListener("pointerdown", (event) => this.down(event));
    element.addEventListener("pointermove", (event) => this.move(event));
    for (const name of ["pointerup", "pointercancel"]) {
      element.addEventListener(name, (event) => this.fingers.delete(event.pointerId));
    }
    element.addEventListener("wheel", (event) => this.wheel(event), {passive: false});
    element.addEventListener("dblclick", (event) => picked(event.offsetX, event.offsetY));
    element.addEventListener("contextmenu", (event) => event.preventDefault());
    addEventListener("keydown", (event) => this.key(event));
    addEventListener("keyup", (event) => { this.pressed.delete(event.code); this.fast = event.shiftKey; });
    addEventListener("blur", () => this.pressed.clear());
  }

  reset() {
    const ahead = add(this.view.target, this.view.position, -1), forward = unit(ahead);
    this.position = [...this.view.position];
    this.distance = Math.hypot(...ahead) || 1;
    this.speed = this.distance;
    this.pitch = Math.max(-STEEPEST, Math.min(STEEPEST, Math.asin(dot(forward, this.up))));
    this.yaw = Math.atan2(dot(forward, this.north), dot(forward, this.east));
    this.changed();
  }

  get forward() {
    const level = add(this.east.map((v) => v * Math.cos(this.yaw)), this.north, Math.sin(this.yaw));
    return add(level.map((v) => v * Math.cos(this.pitch)), this.up, Math.sin(this.pitch));
  }

  // World-to-camera rotation: right, down, forward.
  get rows() {
    const forward = this.forward, right = unit(cross(forward, this.up));
    return [right, cross(forward, right), forward];
  }

  get target() {
    return add(this.position, this.forward, this.distance);
  }

  turn(dx, dy) {
    const target = this.target;
    this.yaw -= dx;
    this.pitch = Math.max(-STEEPEST, Math.min(STEEPEST, this.pitch - dy));
    if (!this.flying) this.position = add(target, this.forward, -this.distance);
    this.changed();
  }

  // By shares of the distance to the target: right, down, forward.
  shift(step, size) {
    this.rows.forEach((row, k) => { this.position = add(this.position, row, step[k] * size); });
    this.changed();
  }

  approach(factor) {
    if (this.flying) return this.shift([0, 0, Math.log(1 / factor)], 0.5 * this.speed);
    const target = this.target;
    this.distance *= factor;
    this.position = add(target, this.forward, -this.distance);
    this.changed();
  }

  look(origin, direction, distance) {
    const point = add(origin, direction, distance), ahead = unit(add(point, this.position, -1));
    this.distance = this.speed = Math.hypot(...add(point, this.position, -1));
    this.pitch = Math.max(-STEEPEST, Math.min(STEEPEST, Math.asin(dot(ahead, this.up))));
    this.yaw = Math.atan2(dot(ahead, this.north), dot(ahead, this.east));
    this.changed();
  }

  down(event) {
    this.element.setPointerCapture(event.pointerId);
    this.fingers.set(event.pointerId, [event.clientX, event.clientY]);
  }

  move(event) {
    const before = this.fingers.get(event.pointerId);
    if (!before) return;
    const now = [event.clientX, event.clientY], height = this.element.clientHeight;
    const [dx, dy] = [(now[0] - before[0]) / height, (now[1] - before[1]) / height];
    const other = [...this.fingers].find(([id]) => id !== event.pointerId)?.[1];
    this.fingers.set(event.pointerId, now);
    if (other) {
      const spread = (point) => Math.max(20, Math.hypot(point[0] - other[0], point[1] - other[1]));
      this.shift([-dx / 2, -dy / 2, 0], this.distance);
      this.approach(spread(before) / spread(now));
    } else if (event.shiftKey || event.buttons & 6) {
      this.shift([-dx, -dy, 0], this.distance);
    } else {
      this.turn(this.flying ? -2 * dx : 4 * dx, this.flying ? -2 * dy : 4 * dy);
    }
  }

  wheel(event) {
    event.preventDefault();
    const pixels = event.deltaY * [1, 16, 400][event.deltaMode];
    this.approach(Math.exp(Math.max(-200, Math.min(200, pixels)) * 0.0015));
  }

  key(event) {
    this.fast = event.shiftKey;
    if (!(event.code in KEYS) || event.ctrlKey || event.metaKey || event.altKey) return;
    if (this.pressed.size === 0) this.changed();
    this.pressed.add(event.code);
    event.preventDefault();
  }

  // Moves by the keys held for `seconds`; whether any is.
  advance(seconds) {
    for (const code of this.pressed) this.shift(KEYS[code], this.speed * (this.fast ? 2 : 0.5) * seconds);
    return this.pressed.size > 0;
  }
}
