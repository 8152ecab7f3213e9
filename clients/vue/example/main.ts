import { createApp } from "vue";
import "@seatws/vue/seatmap.css";
import App from "./App.vue";

createApp(App).mount("#app");
