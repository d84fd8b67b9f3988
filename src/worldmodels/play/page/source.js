export { connect } from "./remote.js";
