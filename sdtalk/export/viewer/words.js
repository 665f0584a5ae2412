// What the viewer says: the page's own language, else the first of the browser's that is here, else English.
const LANGUAGES = {
  en: {
    view: "The head in three dimensions", controls: "Turn the head", left: "Turn to the left", right: "Turn to the right",
    up: "Turn up", down: "Turn down", front: "From the front", play: "Play", pause: "Pause",
    hint: "Drag, or use the arrow keys. One photo shows one side: far round, the head is a guess.",
    turned: (yaw, pitch) => `Turned ${yaw}° sideways, ${pitch}° up or down`,
  },
  zh: {
    view: "三维头像", controls: "转动头像", left: "向左转", right: "向右转", up: "向上转", down: "向下转",
    front: "正面", play: "播放", pause: "暂停",
    hint: "拖动或使用方向键。一张照片只能显示一面：转得太远时，头像只是推测。",
    turned: (yaw, pitch) => `水平转动 ${yaw}°，垂直转动 ${pitch}°`,
  },
  es: {
    view: "La cabeza en tres dimensiones", controls: "Girar la cabeza", left: "Girar a la izquierda",
    right: "Girar a la derecha", up: "Girar hacia arriba", down: "Girar hacia abajo", front: "De frente",
    play: "Reproducir", pause: "Pausa",
    hint: "Arrastre o use las flechas. Una foto muestra un solo lado: muy girada, la cabeza es una suposición.",
    turned: (yaw, pitch) => `Girada ${yaw}° hacia un lado, ${pitch}° en vertical`,
  },
  fr: {
    view: "La tête en trois dimensions", controls: "Tourner la tête", left: "Tourner à gauche",
    right: "Tourner à droite", up: "Tourner vers le haut", down: "Tourner vers le bas", front: "De face",
    play: "Lire", pause: "Pause",
    hint: "Faites glisser ou utilisez les flèches. Une photo ne montre qu'un côté : plus loin, la tête est devinée.",
    turned: (yaw, pitch) => `Tournée de ${yaw}° sur le côté, de ${pitch}° en hauteur`,
  },
  de: {
    view: "Der Kopf in drei Dimensionen", controls: "Kopf drehen", left: "Nach links drehen",
    right: "Nach rechts drehen", up: "Nach oben drehen", down: "Nach unten drehen", front: "Von vorn",
    play: "Abspielen", pause: "Pause",
    hint: "Ziehen oder Pfeiltasten benutzen. Ein Foto zeigt eine Seite: Weit herum ist der Kopf nur geraten.",
    turned: (yaw, pitch) => `${yaw}° zur Seite, ${pitch}° nach oben oder unten gedreht`,
  },
  ja: {
    view: "頭部の3D表示", controls: "頭部を回す", left: "左に回す", right: "右に回す", up: "上に回す", down: "下に回す",
    front: "正面", play: "再生", pause: "一時停止",
    hint: "ドラッグするか、矢印キーを使ってください。写真は片側だけを写すため、大きく回した部分は推測です。",
    turned: (yaw, pitch) => `横に${yaw}°、縦に${pitch}°回転`,
  },
};

const LANGUAGE = navigator.languages.map((name) => name.slice(0, 2)).find((name) => name in LANGUAGES) ?? "en";
const WORDS = LANGUAGES[LANGUAGE];
