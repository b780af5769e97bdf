// Package docs checks that the pages of the documentation agree with the repository: the files, images and tests that
// they name exist.
package docs
